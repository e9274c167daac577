"""How many of the chosen questions a result or a cache holds: all of them, or an unfinished part. Pure.

A run can choose a part of the questions (`--sample`, `--ids`). It is finished when it has asked all that it chose.
So a file is compared with the questions that any of its runs chose, not with all questions of the set.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A larger number is an error in a meta file, and would fill the memory.
_MAX_QUESTIONS = 10_000_000


@dataclass(frozen=True)
class Coverage:
    """`recorded` questions have a record, `to_go` more were chosen, and the set has `questions`. None: nobody knows."""

    recorded: int
    to_go: int | None
    questions: int | None = None

    @property
    def partial(self) -> bool:
        """Whether the run has not finished, or may not have finished: nobody knows it of a foreign cache."""
        return self.to_go != 0

    @property
    def of_a_choice(self) -> bool:
        """Whether the run has finished and was to ask a part of the questions."""
        return not self.partial and self.questions is not None and self.recorded < self.questions


def measure(path: Path, stated: Mapping[str, Any], indices: Iterable[int], *, rows: int | None) -> Coverage:
    """What the file at `path` covers. It has records of `indices`.

    `stated` is the coverage in its meta file, {} where there is none. `rows` is the size of a published dataset, None
    where the dataset is not published. Without both, a result counts as whole; a cache may be of an unfinished run.
    """
    recorded = frozenset(indices)
    chosen = read_spans(stated.get("chosen"))
    questions = _count(stated.get("items"))
    if chosen is not None:
        return Coverage(len(recorded), len(chosen - recorded), rows if questions is None else questions)
    if questions is not None:
        return Coverage(len(recorded), max(0, questions - len(recorded)), questions)
    if rows is not None:
        whole = frozenset(range(rows))
        return Coverage(len(recorded & whole), len(whole - recorded), rows)
    return Coverage(len(recorded), None if path.name.startswith("cache_") else 0)


def write_spans(indices: Collection[int]) -> list[list[int]]:
    """Indices as [first, last] of each range of consecutive ones. So a choice of thousands stays short."""
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
    if any(span is None for span in spans) or sum(span.stop - span.start for span in spans if span) > _MAX_QUESTIONS:
        return None
    return frozenset(index for span in spans if span for index in span)


def _span(value: object) -> range | None:
    if not (isinstance(value, list) and len(value) == 2 and all(type(end) is int for end in value)):
        return None
    first, last = value
    return range(first, last + 1) if first <= last else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_QUESTIONS else None
