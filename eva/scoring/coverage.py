"""How much of what was asked for a result or a cache holds: all of it, or an unfinished part. Pure.

A run that was told to ask a part of the questions (`--sample`, `--ids`) and has asked them all is finished: it is
whole, for that part. So a file is held against the questions that any of its runs chose, not against all there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# More questions than that are a slip in a meta file, and would fill the memory.
_MOST = 10_000_000


@dataclass(frozen=True)
class Coverage:
    """`recorded` questions have a record, `to_go` more were chosen, of `questions` that the set has; None where nobody
    knows."""

    recorded: int
    to_go: int | None
    questions: int | None = None

    @property
    def partial(self) -> bool:
        """Whether it is of a run that has not finished. Where nobody knows, as of another's cache, it may be."""
        return self.to_go != 0

    @property
    def of_a_choice(self) -> bool:
        """Whether it is of a finished run that was to ask a part of the questions."""
        return not self.partial and self.questions is not None and self.recorded < self.questions


def measure(path: Path, said: Mapping[str, Any], indices: Iterable[int], *, rows: int | None) -> Coverage:
    """What the file at `path` covers, which has records of `indices`.

    `said` is the coverage in its meta file, {} where nothing is said; `rows` is the size of a published dataset.
    Without both, a result is taken for whole; a cache may be of a run that goes on.
    """
    recorded = frozenset(indices)
    chosen = read_spans(said.get("chosen"))
    questions = _count(said.get("items"))
    if chosen is not None:
        return Coverage(len(recorded), len(chosen - recorded), rows if questions is None else questions)
    if questions is not None:
        return Coverage(len(recorded), max(0, questions - len(recorded)), questions)
    if rows is not None:
        whole = frozenset(range(rows))
        return Coverage(len(recorded & whole), len(whole - recorded), rows)
    return Coverage(len(recorded), None if path.name.startswith("cache_") else 0)


def write_spans(indices: Collection[int]) -> list[list[int]]:
    """Indices as [first, last] of each unbroken row of them, which is short for a choice of thousands."""
    spans: list[list[int]] = []
    for index in sorted(indices):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return spans


def read_spans(value: object) -> frozenset[int] | None:
    """The indices that `write_spans` wrote; None for anything else."""
    if not isinstance(value, list):
        return None
    spans = [_span(part) for part in value]
    if any(span is None for span in spans) or sum(span.stop - span.start for span in spans if span) > _MOST:
        return None
    return frozenset(index for span in spans if span for index in span)


def _span(value: object) -> range | None:
    if not (isinstance(value, list) and len(value) == 2 and all(type(end) is int for end in value)):
        return None
    first, last = value
    return range(first, last + 1) if first <= last else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST else None
