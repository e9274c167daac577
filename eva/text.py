"""Untrusted text -> printable text, and long lines -> lines that fit. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence


def printable(text: str, *, limit: int = 200) -> str:
    """`text` as one line of at most `limit` characters, safe for terminals and XML.

    White space becomes a space; control characters, direction marks and lone surrogates become U+FFFD.
    """
    start = text[: limit + 1]
    clean = "".join(" " if char.isspace() else char if char.isprintable() else "\ufffd" for char in start)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def printable_lines(lines: Iterable[str]) -> str:
    """Lines for a person as one text. Each one stays one line, and is made printable."""
    return "\n".join(printable(line, limit=2000) for line in lines)


def folded(line: str, columns: int, indent: str) -> Sequence[str]:
    """`line` in lines of at most so many columns; all but the first begin with `indent`.

    A longer word stays whole, so that an address or a path can be copied. An empty line stays.
    """
    return textwrap.wrap(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [
        line
    ]


def without_secrets(urls: str) -> str:
    """Addresses with placeholders for user, password and the values of the query."""
    urls = re.sub(r"([?&][^=&,]*=)[^&,]*", r"\1YOUR_KEY", urls)
    return re.sub(r"//[^/,]*@", "//YOUR_USER:YOUR_PASSWORD@", urls)
