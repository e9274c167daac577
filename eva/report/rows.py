"""Records -> the rows of the report's table: small, one list per column, so that ten thousand open at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eva.protocol.stop_reasons import AGENT, INFRASTRUCTURE, SAMPLE
from eva.records.outcome import Outcome
from eva.records.schema import Record
from eva.scoring.categories import categories

RIGHT, WRONG, UNANSWERED, FAILED = STATUSES = ("right", "wrong", "unanswered", "failed")


@dataclass(frozen=True)
class Row:
    """One sample in the table; `seconds` is its wall time. Counts that a record lacks are None."""

    index: int
    question: str
    truth: str
    answer: str
    status: str
    stop_reason: str
    rounds: float | None
    tokens: float | None
    seconds: float | None
    video: str
    categories: tuple[str, ...]


def make_row(record: Record, dataset: str) -> Row:
    outcome = record.outcome
    return Row(
        index=outcome.index,
        question=record.question,
        truth=outcome.ground_truth,
        answer=outcome.answer,
        status=status(outcome),
        stop_reason=outcome.stop_reason,
        rounds=outcome.num_rounds,
        tokens=outcome.total_tokens,
        seconds=outcome.seconds,
        video=outcome.video,
        categories=categories(dataset, record),
    )


def status(outcome: Outcome) -> str:
    """One of STATUSES. Right is what accuracy counts; of the rest, whether an answer was given, and whose failure
    it is that there is none."""
    if outcome.correct:
        return RIGHT
    if outcome.failure in (SAMPLE, INFRASTRUCTURE, AGENT):
        return FAILED
    return WRONG if outcome.answer.strip() else UNANSWERED


def columns(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows, one list per column; texts that repeat stand once in `names` and are numbers in their columns."""
    names: dict[str, int] = {}

    def numbered(texts: Iterable[str]) -> list[int]:
        return [names.setdefault(text, len(names)) for text in texts]

    return {
        "index": [row.index for row in rows],
        "question": [row.question for row in rows],
        "truth": numbered(row.truth for row in rows),
        "answer": numbered(row.answer for row in rows),
        "status": [STATUSES.index(row.status) for row in rows],
        "stop": numbered(row.stop_reason for row in rows),
        "rounds": [row.rounds for row in rows],
        "tokens": [row.tokens for row in rows],
        "seconds": [row.seconds for row in rows],
        "video": numbered(row.video for row in rows),
        "categories": [numbered(row.categories) for row in rows],
        "names": list(names),
    }
