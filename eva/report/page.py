"""The report: one HTML file that opens from the disk, without a network.

Its outline is a Jinja template (autoescaped). Its script and style are the files in assets/, inlined. The page's
Content-Security-Policy names their hashes, so that nothing else can run. The samples are data: a table of small rows as
JSON, and the records, packed, PER_BLOCK per block. The script unpacks a block when a reader opens one of its samples,
and reads the record itself. The blocks are at the end of the page, so that a browser shows the beginning before it has
read them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from eva.report.charts import Chart

SCRIPTS = (
    "dom.js", "data.js", "record.js", "table.js", "filter.js", "address.js", "export.js", "timeline.js", "viewer.js",
    "sample.js", "head.js", "page.js",
)  # fmt: skip
# Records per block, and pictures per block of pictures; the settings of the page have it for the script.
PER_BLOCK = 100
END = "</body>\n</html>\n"
_ASSETS = Path(__file__).parent / "assets"


def block(name: str, content: str, *, kind: str = "application/json") -> str:
    """An inert script element. No text can end it, because every `<` becomes an escape of JSON."""
    inert = content.replace("<", "\\u003c")
    return f'<script type="{kind}" id="data-{name}">{inert}</script>\n'


def compact(value: object) -> str:
    """JSON in ASCII, so that no lone surrogate and no line separator stands in the page."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def packed_block(name: str, lines: Iterable[bytes]) -> str:
    """A block of lines of JSON, packed."""
    packed = base64.b64encode(gzip.compress(b"".join(lines), 6, mtime=0)).decode("ascii")
    return block(name, packed, kind="application/octet-stream")


def render_beginning(title: str, charts: Sequence[Chart], data: Mapping[str, object], *, live: bool) -> str:
    """The page up to the blocks of records. Each entry of `data` becomes a JSON block with this name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = (_ASSETS / "page.css").read_text(encoding="utf-8")
    parts = [(_ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS]
    # In a function of its own, so that no name in it hides a name of the browser.
    script = "\n".join(['(() => {\n"use strict";\n', *parts, "})();\n"])
    policy = [
        "default-src 'none'",
        f"script-src '{_hash(script)}'",
        f"style-src-elem '{_hash(style)}'",
        # Attributes only: the charts' lines carry their colours in them.
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data:; connect-src 'self'" if live else "img-src data: file:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return environment.get_template("page.html.j2").render(
        title=title,
        policy="; ".join(policy),
        style=style,
        script=script,
        charts=charts,
        data="".join(block(name, compact(value)) for name, value in data.items()),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
