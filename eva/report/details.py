"""A record -> what the report shows of one sample: the question, every round, every call and its frames. Pure.

A record may be anybody's: a field that is not as this harness writes it is shown as the text that it is, or left out.
What comes out holds texts, finite numbers, lists and objects of them, so that it is JSON for every browser.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from eva.protocol.arguments import FrameRequest, UnusableArgumentError, read_request
from eva.protocol.messages import clock, requested_times
from eva.report.question import read_question
from eva.report.rows import Row
from eva.report.trajectories import turns
from eva.scoring.categories import time_reference_s, video_duration_s

Detail = dict[str, Any]

# Shown in a form of their own, or of no use to a reader.
_SHOWN = frozenset(
    {"index", "videos", "messages", "gt", "answer", "stop_reason", "num_rounds", "total_tokens", "trajectory",
     "seconds", "estimated_visual_tokens", "error", "error_detail", "failure", "video_file", "video_duration_s",
     "time_reference"}
)  # fmt: skip


def detail(record: Mapping[str, Any], row: Row, *, timestamps: str) -> Detail:
    """`timestamps` is the run's setting: with "actual" the model was told the times decoded, else those asked for.

    A call's `frames` are objects with the time in seconds, the label that the model saw, and the frame's path (`name`).
    """
    question = read_question(row.question)
    reference = time_reference_s(record)
    return {
        "index": row.index,
        "stem": question.stem,
        "options": [list(option) for option in question.options],
        "after": question.after,
        "truth": row.truth,
        "answer": row.answer,
        "status": row.status,
        "stop": row.stop_reason,
        "video": row.video,
        "video_file": text(record.get("video_file")),
        "duration_s": video_duration_s(record),
        "reference_s": list(reference) if reference else None,
        "reference": text(record.get("time_reference")),
        "categories": list(row.categories),
        "rounds": number(record.get("num_rounds")),
        "tokens": number(record.get("total_tokens")),
        "visual_tokens": number(record.get("estimated_visual_tokens")),
        "seconds": row.seconds,
        "failure": text(record.get("failure")),
        "error": text(record.get("error")),
        "error_detail": text(record.get("error_detail")),
        "extra": [[key, text(value)] for key, value in record.items() if key not in _SHOWN],
        **_course(record, timestamps),
    }


def _course(record: Mapping[str, Any], timestamps: str) -> Detail:
    """The rounds; of a record without them, as the reference's are, the transcript's turns."""
    rounds = record.get("trajectory")
    if isinstance(rounds, list):
        return {"trajectory": [_round(mapping(round_), timestamps) for round_ in rounds], "turns": []}
    return {"trajectory": None, "turns": [list(turn) for turn in turns(record.get("messages"))]}


def _round(round_: Mapping[str, Any], timestamps: str) -> Detail:
    usage = mapping(round_.get("usage"))
    return {
        "reply": text(round_.get("reply")),
        "prompt_tokens": number(usage.get("prompt_tokens")),
        "completion_tokens": number(usage.get("completion_tokens")),
        "total_tokens": number(usage.get("total_tokens")),
        "seconds": number(round_.get("seconds")),
        "finish": text(round_.get("finish_reason")),
        "calls": [_call(mapping(call), timestamps) for call in items(round_.get("calls"))],
    }


def _call(call: Mapping[str, Any], timestamps: str) -> Detail:
    request = _request(call.get("asked"))
    budgeted, executed = mapping(call.get("budgeted")), mapping(call.get("executed"))
    return {
        "asked": text(call.get("asked")),
        "asked_s": _window(request.start_s, request.end_s) if request else None,
        "asked_nframes": number(request.nframes) if request else None,
        "asked_resize": number(request.resize) if request else None,
        "nframes": number(budgeted.get("nframes")),
        "resize": number(budgeted.get("resize")),
        "tokens": number(call.get("tokens")),
        "executed_s": _window(executed.get("start_s"), executed.get("end_s")),
        "width": number(executed.get("width")),
        "height": number(executed.get("height")),
        "decoder": text(executed.get("decoder")),
        "seconds": number(executed.get("seconds")),
        "error": text(call.get("error")),
        "reason": text(call.get("reason")),
        "frames": _frames(call, request, executed, timestamps),
    }


def _frames(
    call: Mapping[str, Any], request: FrameRequest | None, executed: Mapping[str, Any], timestamps: str
) -> list[Detail]:
    names = items(call.get("frames"))
    times_s = _padded([number(time_s) for time_s in items(executed.get("times_s"))], len(names))
    labels = times_s if timestamps == "actual" else _requested(request, len(names))
    return [
        {"name": name if isinstance(name, str) else "", "time_s": time_s, "label": _label(label)}
        for name, time_s, label in zip(names, times_s, labels, strict=True)
    ]


def _requested(request: FrameRequest | None, count: int) -> Sequence[float | None]:
    start_s, end_s = (number(request.start_s), number(request.end_s)) if request else (None, None)
    if start_s is None or end_s is None:
        return [None] * count
    try:
        return requested_times(start_s, end_s, count)
    except (OverflowError, ValueError):
        return [None] * count


def _label(time_s: float | None) -> str:
    return "" if time_s is None else clock(int(time_s))


def _padded(values: list[float | None], count: int) -> list[float | None]:
    """A time for each frame, or none for any: which belongs to which would be a guess."""
    return values if len(values) == count else [None] * count


def _request(asked: object) -> FrameRequest | None:
    try:
        return read_request(mapping(asked))
    except (KeyError, UnusableArgumentError):
        return None


def _window(start_s: object, end_s: object) -> list[float] | None:
    start, end = number(start_s), number(end_s)
    return None if start is None or end is None else [start, end]


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def number(value: object) -> float | None:
    """A finite number that a browser can hold, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the floats
        return None


def text(value: object) -> str:
    """A text as it is, nothing as the empty text, any other value as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def frames_of(sample: Detail) -> list[Detail]:
    """All frames of a sample in the order in which the model got them."""
    return [frame for round_ in sample["trajectory"] or [] for call in round_["calls"] for frame in call["frames"]]
