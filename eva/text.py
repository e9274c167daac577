"""Untrusted text -> printable text. Pure."""

from __future__ import annotations


def printable(text: str, *, limit: int = 200) -> str:
    """`text` as one line of at most `limit` characters, safe for terminals and XML.

    White space becomes a space; control characters, direction marks and lone surrogates become U+FFFD.
    """
    start = text[: limit + 1]
    clean = "".join(" " if char.isspace() else char if char.isprintable() else "\ufffd" for char in start)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def printable_lines(text: str) -> str:
    """`text` with each of its lines made printable."""
    return "\n".join(printable(line, limit=2000) for line in text.split("\n"))
