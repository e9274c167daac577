"""A question as it was asked -> its parts: the question proper, and its options. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import ascii_uppercase

# Some datasets' line ends are a backslash and an n.
_LINE_END = re.compile(r"\n|\\n")
_OPTION = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[.:)])\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """What was asked: the question proper, its options as (letter, text), and what the prompt says after them."""

    stem: str
    options: tuple[tuple[str, str], ...] = ()
    after: str = ""


def read_question(text: str) -> Question:
    """The options are the lines that begin with A, B, C, ... in this order, at least two of them."""
    lines = _LINE_END.split(text)
    starts = _option_starts(lines)
    if len(starts) < 2:
        return Question("\n".join(lines).strip())
    # An option may go on over further lines, the last one not: what follows it speaks to the model.
    ends = [*starts[1:], starts[-1] + 1]
    options = tuple(_option("\n".join(lines[start:end])) for start, end in zip(starts, ends, strict=True))
    return Question("\n".join(lines[: starts[0]]).strip(), options, "\n".join(lines[ends[-1] :]).strip())


def _option_starts(lines: list[str]) -> list[int]:
    starts: list[int] = []
    for number, line in enumerate(lines):
        match = _OPTION.match(line)
        if match and ascii_uppercase[len(starts) :].startswith(match[1] or match[2]):
            starts.append(number)
    return starts


def _option(text: str) -> tuple[str, str]:
    match = _OPTION.match(text)
    return (match[1] or match[2], match[3].strip()) if match else ("", text)
