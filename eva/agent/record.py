"""A finished sample -> its record: the reference's fields, and the trajectory that shows what the agent saw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from eva.agent.loop import Episode, Round
from eva.agent.tool_call import ToolCallOutcome
from eva.dataset.items import Item
from eva.errors import EvaError, VideoError
from eva.json_text import MOST_LEVELS, is_deeper
from eva.protocol.messages import PromptError
from eva.protocol.stop_reasons import BAD_REQUEST, EXCEPTION, INFRASTRUCTURE, MODEL, SAMPLE

Record = dict[str, Any]

# A record holds what was asked some levels down, and must be readable itself.
MOST_ASKED_LEVELS = MOST_LEVELS // 2
BAD_REQUEST_ERROR = "OpenAI BadRequestError after retries"
_EXECUTED = ("start_s", "end_s", "indices", "times_s", "width", "height", "decoder")


def episode_record(item: Item, episode: Episode, transcript: str) -> Record:
    """The record of an episode that ended by the protocol; `transcript` is its conversation as text."""
    rounds = episode.rounds
    record = _record(item, transcript, answer=episode.answer, stop_reason=episode.stop_reason)
    record["num_rounds"] = len(rounds)
    record["total_tokens"] = rounds[-1].reply.usage.total_tokens if rounds else 0
    record["estimated_visual_tokens"] = sum(_tokens(look) for round_ in rounds for look in round_.outcomes)
    if episode.stop_reason == BAD_REQUEST:
        record |= {"error": BAD_REQUEST_ERROR, "error_detail": episode.refusal}
    return record | _carried(item) | _additions(episode, "" if episode.answer else MODEL)


def exception_record(item: Item, error: Exception, episode: Episode) -> Record:
    """The record of a sample that failed by no fault of the model; the rounds that it completed stay visible."""
    record = _record(item, [], answer="", stop_reason=EXCEPTION)
    record |= {"num_rounds": 0, "total_tokens": 0, "estimated_visual_tokens": 0}
    name = error.recorded_as if isinstance(error, EvaError) else None
    record["error"] = f"{name or type(error).__name__}: {error}"
    failure = SAMPLE if isinstance(error, (VideoError, PromptError)) else INFRASTRUCTURE
    return record | _carried(item) | _additions(episode, failure)


def _record(item: Item, messages: str | list[Any], *, answer: str, stop_reason: str) -> Record:
    return {
        "index": item.index,
        "videos": list(item.videos),
        "messages": messages,
        "gt": item.ground_truth,
        "answer": answer,
        "stop_reason": stop_reason,
    }


def _carried(item: Item) -> Record:
    """The annotation's other keys, for reports; one that bears a record's own name cannot be carried."""
    taken = _record(item, [], answer="", stop_reason="").keys() | {
        "num_rounds", "total_tokens", "estimated_visual_tokens", "error", "error_detail",
        "failure", "video_file", "video_duration_s", "trajectory", "seconds",
    }  # fmt: skip
    return {key: value for key, value in item.extra.items() if key not in taken}


def _additions(episode: Episode, failure: str) -> Record:
    """What the reference's records do not have."""
    additions: Record = {"failure": failure} if failure else {}
    if episode.video_file:
        additions["video_file"] = episode.video_file
    if episode.video_duration_s is not None:
        additions["video_duration_s"] = episode.video_duration_s
    return additions | {"trajectory": trajectory(episode.rounds)}


def trajectory(rounds: Sequence[Round]) -> list[Record]:
    """Per round the reply, its usage and seconds; per call what was asked, budgeted, executed and seen."""
    return [
        {
            "reply": round_.reply.text,
            "usage": asdict(round_.reply.usage),
            "seconds": round_.reply.seconds,
            "finish_reason": round_.reply.finish_reason,
            "calls": [_call(look) for look in round_.outcomes],
        }
        for round_ in rounds
    ]


def _call(look: ToolCallOutcome) -> Record:
    return {
        "asked": _asked(look),
        "budgeted": asdict(look.budgeted) if look.budgeted else None,
        "executed": _executed(look),
        "frames": [str(frame) for frame in look.extraction.frames] if look.extraction else [],
        "tokens": _tokens(look),
        "error": look.error,
        "reason": look.reason,
    }


def _asked(look: ToolCallOutcome) -> Mapping[str, Any] | str:
    """The arguments, or the model's own text where they are not JSON that every reader takes (NaN, bottomless)."""
    arguments = look.call.arguments
    if arguments is None or is_deeper(arguments, MOST_ASKED_LEVELS):
        return look.call.raw
    try:
        json.dumps(arguments, allow_nan=False)
    except ValueError:
        return look.call.raw
    return arguments


def _executed(look: ToolCallOutcome) -> Record | None:
    if look.extraction is None:
        return None
    details = look.extraction.details
    return {key: details[key] for key in _EXECUTED if key in details} | {"seconds": look.extraction.seconds}


def _tokens(look: ToolCallOutcome) -> int:
    return look.budgeted.tokens if look.budgeted else 0
