"""Made-up results: their records, their files, and what the scoring room reads of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import write_rows

from eva.records.meta import Meta, write_meta
from eva.records.outcome import Outcome
from eva.records.schema import read_record
from eva.scoring.published import load_published
from eva.scoring.result_file import ResultFile, read_result, write_spans

Row = dict[str, Any]
PUBLISHED = load_published()


def row(index: int, answer: str = "B", **more: Any) -> Row:
    """A record as a line has it; "B" is right, and two questions are on one video."""
    basic = {"gt": "B", "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 100}
    return {"index": index, "videos": [f"{index // 2}.mp4"], "answer": answer, **basic, **more}


def rows(answers: Iterable[str], **more: Any) -> list[Row]:
    """One row per answer."""
    return [row(index, answer, **more) for index, answer in enumerate(answers)]


def outcomes(records: Iterable[Row]) -> list[Outcome]:
    return [read_record(one).outcome for one in records]


def write_result(
    path: Path, records: Sequence[Row], settings: Row | None = None, *, items: int | None = None, **more: Any
) -> Path:
    """With settings a meta file stands beside it: of a run that was to ask these questions, or all `items`."""
    write_rows(path, records)
    if settings is not None:
        chosen = {record["index"] for record in records} if items is None else range(items)
        write_meta(path, Meta(settings, {}, (), coverage={"items": len(chosen), "chosen": write_spans(chosen)}, **more))
    return path


def result(path: Path, records: Sequence[Row], settings: Row | None = None, **more: Any) -> ResultFile:
    return read_result(write_result(path, records, settings, **more), PUBLISHED)


def correlated(count: int, *, videos: int, share: float, seed: int = 1) -> list[Row]:
    """About `share` are right; the questions of one video are mostly right or wrong together."""
    dice = np.random.default_rng(seed)
    luck = np.clip(dice.normal(share, 0.3, videos), 0, 1)
    reasons = ("answer_found", "answer_found", "answer_found", "max_turns_exceeded")
    return [
        row(
            number,
            "B" if dice.random() < luck[number % videos] else ("", "C")[number % 2],
            videos=[f"video {number % videos}.mp4"],
            stop_reason=reasons[number % 4],
            num_rounds=number % 5,
            total_tokens=100 + number,
        )
        for number in range(count)
    ]
