"""The report: one HTML file that opens from the disk, without a network.

Its outline is a Jinja template (autoescaped). Its script and style are the files in assets/, inlined. The page's
Content-Security-Policy names their hashes, so that nothing else can run. The samples are data: a table of small rows as
JSON, and the compressed details, PER_BLOCK samples per block. The script unpacks a block when a reader opens one of its
samples. The blocks are at the end of the page, so that a browser shows the beginning before it has read them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import jinja2

from eva.records.cache import encode
from eva.records.schema import Record, record_json
from eva.report.details import Detail

if TYPE_CHECKING:
    from eva.report.charts import Chart

SCRIPTS = (
    "dom.js", "data.js", "table.js", "filter.js", "address.js", "export.js", "timeline.js", "viewer.js", "sample.js",
    "head.js", "page.js",
)  # fmt: skip
STATIC_SOURCES = "img-src data: file:"
LIVE_SOURCES = "img-src 'self' data:; connect-src 'self'"
# Samples per block of details, and pictures per block of pictures; assets/data.js has the same number.
PER_BLOCK = 100
_END = "</body>\n</html>\n"


@dataclass(frozen=True)
class Blocks:
    """The data blocks after the page's beginning. A file holds them until the beginning is written."""

    file: IO[bytes]

    def write(self, name: str, content: str, *, kind: str = "application/json") -> None:
        self.file.write(block(name, content, kind=kind).encode("ascii"))

    def write_details(self, run: int, number: int, samples: Iterable[tuple[Detail, Record]]) -> None:
        """The samples of a run's block `number`: two lines each, the details and the record.

        Most of a record stands in the details too, and one beside the other they pack well.
        """
        lines = (line for sample, record in samples for line in (encode(sample), encode(record_json(record))))
        self.write_lines(f"details-{run}-{number}", lines)

    def write_lines(self, name: str, lines: Iterable[bytes]) -> None:
        """A block of lines of JSON, packed."""
        packed = base64.b64encode(gzip.compress(b"".join(lines), 6, mtime=0)).decode("ascii")
        self.write(name, packed, kind="application/octet-stream")


def block(name: str, content: str, *, kind: str = "application/json") -> str:
    """An inert script element. No text can end it, because every `<` becomes an escape of JSON."""
    inert = content.replace("<", "\\u003c")
    return f'<script type="{kind}" id="data-{name}">{inert}</script>\n'


def compact(value: object) -> str:
    """JSON in ASCII, so that no lone surrogate and no line separator stands in the page."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Assets:
    """The files of assets/ as they go into a page."""

    template: jinja2.Template
    style: str
    script: str

    @classmethod
    def load(cls) -> Assets:
        folder = Path(__file__).parent / "assets"
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined
        )
        style = (folder / "page.css").read_text(encoding="utf-8")
        parts = [(folder / name).read_text(encoding="utf-8") for name in SCRIPTS]
        # In a function of its own, so that no name in it hides a name of the browser.
        script = "\n".join(['(() => {\n"use strict";\n', *parts, "})();\n"])
        return cls(environment.get_template("page.html.j2"), style, script)

    def policy(self, sources: str) -> str:
        """The Content-Security-Policy: this script, this style, pictures, and nothing else."""
        return "; ".join(
            [
                "default-src 'none'",
                f"script-src '{_hash(self.script)}'",
                f"style-src-elem '{_hash(self.style)}'",
                # Attributes only: the charts' lines carry their colours in them.
                "style-src-attr 'unsafe-inline'",
                sources,
                "base-uri 'none'",
                "form-action 'none'",
            ]
        )


@dataclass(frozen=True)
class Page:
    """What the beginning of a page shows. Each entry of `data` becomes a JSON block with this name."""

    title: str
    charts: Sequence[Chart]
    data: Mapping[str, object]
    sources: str = STATIC_SOURCES
    charts_title: str = "Charts"


def render_beginning(page: Page, assets: Assets) -> str:
    """The page up to the blocks of details."""
    return assets.template.render(
        title=page.title,
        policy=assets.policy(page.sources),
        style=assets.style,
        script=assets.script,
        charts=page.charts,
        charts_title=page.charts_title,
        data="".join(block(name, compact(value)) for name, value in page.data.items()),
    )


def render_live(page: Page, assets: Assets) -> str:
    """A live page: it has no blocks of details."""
    return render_beginning(page, assets) + _END


def write_page(file: IO[bytes], page: Page, assets: Assets, details: IO[bytes]) -> None:
    """The beginning, then all of `details`."""
    file.write(render_beginning(page, assets).encode())
    details.seek(0)
    shutil.copyfileobj(details, file)
    file.write(_END.encode())


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
