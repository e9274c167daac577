"""A record -> what the report shows of one sample: the question, every round, every call and its frames. Pure.

What comes out holds texts, finite numbers, lists and objects of them, so that it is JSON for every browser.
"""

from __future__ import annotations

from typing import Any

from eva.json_text import json_text, number
from eva.protocol.messages import clock
from eva.records.read_transcript import split_turns
from eva.records.schema import Call, Executed, Number, Record, Round, transcript
from eva.report.question import read_question
from eva.report.rows import Row
from eva.report.samples import time_reference_s

Detail = dict[str, Any]


def detail(record: Record, row: Row, *, timestamps: str) -> Detail:
    """`timestamps` is the run's setting, for records that do not say what the frames' labels were.

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
        "video_file": record.video_file,
        "duration_s": record.video_duration_s,
        "reference_s": list(reference) if reference else None,
        "reference": json_text(record.extra.get("time_reference")),
        "categories": list(row.categories),
        "rounds": row.rounds,
        "tokens": row.tokens,
        "visual_tokens": record.estimated_visual_tokens,
        "seconds": row.seconds,
        "failure": record.failure or "",
        "error": record.error,
        "error_detail": record.error_detail,
        "extra": [[key, json_text(value)] for key, value in record.extra.items() if key != "time_reference"],
        **_course(record, timestamps),
    }


def _course(record: Record, timestamps: str) -> Detail:
    """The rounds; of a record without them, as the reference's are, the transcript's turns."""
    if record.trajectory is not None:
        rounds = [_round(round_, timestamps) for round_ in record.rounds]
        if rounds:  # the frames that an agent opens with are shown with the reply to them
            rounds[0]["calls"] = [*(_call(call, timestamps) for call in record.looks), *rounds[0]["calls"]]
        return {"trajectory": rounds, "turns": []}
    return {"trajectory": None, "turns": [list(turn) for turn in split_turns(transcript(record.messages))]}


def _round(round_: Round, timestamps: str) -> Detail:
    return {
        "reply": round_.reply,
        "prompt_tokens": round_.usage.prompt_tokens,
        "completion_tokens": round_.usage.completion_tokens,
        "total_tokens": round_.usage.total_tokens,
        "seconds": round_.seconds,
        "finish": round_.finish_reason or "",
        "calls": [_call(call, timestamps) for call in round_.calls],
    }


def _call(call: Call, timestamps: str) -> Detail:
    request, budgeted, executed = call.request, call.budgeted, call.executed or Executed()
    return {
        "asked": json_text(call.asked),
        "asked_s": _window(number(request.start_s), number(request.end_s)) if request else None,
        "asked_nframes": number(request.nframes) if request else None,
        "asked_resize": number(request.resize) if request else None,
        "nframes": budgeted.nframes if budgeted else None,
        "resize": budgeted.resize if budgeted else None,
        "tokens": call.tokens,
        "executed_s": _window(executed.start_s, executed.end_s),
        "width": executed.width,
        "height": executed.height,
        "decoder": executed.decoder or "",
        "seconds": executed.seconds,
        "error": call.error or "",
        "reason": call.reason or "",
        "frames": _frames(call, timestamps),
    }


def _frames(call: Call, timestamps: str) -> list[Detail]:
    labels_s = call.find_labels_s(timestamps)
    return [
        {"name": name, "time_s": time_s, "label": "" if label_s is None else clock(int(label_s))}
        for name, time_s, label_s in zip(call.frames, call.times_s, labels_s, strict=True)
    ]


def _window(start_s: Number, end_s: Number) -> list[float] | None:
    return None if start_s is None or end_s is None else [start_s, end_s]


def frames_of(sample: Detail) -> list[Detail]:
    """All frames of a sample in the order in which the model got them."""
    return [frame for round_ in sample["trajectory"] or [] for call in round_["calls"] for frame in call["frames"]]
