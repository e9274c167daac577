"""The report: one HTML file that opens from the disk, without a network.

Its frame is a Jinja template (autoescaped), its script and style are the files in assets/, inlined and named by their
hashes in the page's Content-Security-Policy, so that nothing else can run. The samples are data: a table of small rows
as JSON, and the details, a hundred samples at a time, compressed, which the script unpacks when they are looked at.
These stand at the end of the page, so that a browser shows the beginning before it has read them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import jinja2

from eva.report.details import Detail

if TYPE_CHECKING:
    from eva.report.charts import Chart

SCRIPTS = ("dom.js", "data.js", "table.js", "timeline.js", "sample.js", "head.js", "page.js")
STATIC_SOURCES = "img-src data: file:"
_END = "</body>\n</html>\n"
LIVE_SOURCES = "img-src 'self' data:; connect-src 'self'"


@dataclass(frozen=True)
class Blocks:
    """The data blocks that follow the page's beginning, kept in a file until that can be written."""

    file: IO[bytes]

    def write(self, name: str, content: str, *, kind: str = "application/json") -> None:
        self.file.write(block(name, content, kind=kind).encode("ascii"))

    def write_details(self, run: int, number: int, samples: Sequence[Detail]) -> None:
        """The details of a run's samples, those of its block with this number."""
        # A lone surrogate, which is no UTF-8, stays the escape that it is in JSON.
        text = json.dumps(samples, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="backslashreplace")
        packed = base64.b64encode(gzip.compress(text, 6, mtime=0)).decode("ascii")
        self.write(f"details-{run}-{number}", packed, kind="application/octet-stream")


def block(name: str, content: str, *, kind: str = "application/json") -> str:
    """An inert script element. No text can end it: in JSON a `<` can always be written as an escape."""
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
        # In a function of its own, so that no name of it takes the place of the browser's.
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
    """What the beginning of a page shows. `data` becomes JSON blocks, by name."""

    title: str
    charts: Sequence[Chart]
    data: Mapping[str, object]
    sources: str = STATIC_SOURCES


def beginning(page: Page, assets: Assets) -> str:
    """The page up to where the blocks of details follow."""
    return assets.template.render(
        title=page.title,
        policy=assets.policy(page.sources),
        style=assets.style,
        script=assets.script,
        charts=page.charts,
        data="".join(block(name, compact(value)) for name, value in page.data.items()),
    )


def whole(page: Page, assets: Assets) -> str:
    """A page that has no blocks of details."""
    return beginning(page, assets) + _END


def write_page(file: IO[bytes], page: Page, assets: Assets, details: IO[bytes]) -> None:
    """The beginning, then all of `details`."""
    file.write(beginning(page, assets).encode())
    details.seek(0)
    shutil.copyfileobj(details, file)
    file.write(_END.encode())


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
