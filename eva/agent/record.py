"""A finished sample -> its record (eva/records/schema.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from eva.agent.loop import Episode, Round
from eva.agent.tool_call import ToolCallOutcome
from eva.dataset.items import Item
from eva.endpoint.completion import NativeCall, Reply, Usage
from eva.errors import EvaError, VideoError
from eva.json_text import MOST_LEVELS, is_deeper, items, mapping, text
from eva.protocol.messages import PromptError, first_question
from eva.protocol.stop_reasons import BAD_REQUEST, EXCEPTION, INFRASTRUCTURE, MODEL, SAMPLE
from eva.records import schema
from eva.records.schema import Record, Transcript

# A record holds what was asked some levels down, and must be readable itself.
MOST_ASKED_LEVELS = MOST_LEVELS // 2
BAD_REQUEST_ERROR = "OpenAI BadRequestError after retries"
_EXECUTED = ("start_s", "end_s", "indices", "times_s", "width", "height", "decoder")


def episode_record(item: Item, episode: Episode, transcript: Transcript) -> Record:
    """The record of an episode that ended by the protocol; `transcript` is its conversation."""
    rounds = episode.rounds
    refused = episode.stop_reason == BAD_REQUEST
    return Record(
        messages=transcript,
        answer=episode.answer,
        stop_reason=episode.stop_reason,
        num_rounds=len(rounds),
        total_tokens=rounds[-1].reply.usage.total_tokens if rounds else 0,
        estimated_visual_tokens=sum(map(_tokens, episode.outcomes())),
        error=BAD_REQUEST_ERROR if refused else "",
        error_detail=episode.refusal if refused else "",
        failure=None if episode.answer else MODEL,
        **_common(item, episode),
    )


def exception_record(item: Item, error: Exception, episode: Episode) -> Record:
    """The record of a sample that failed by no fault of the model; the rounds that it completed stay visible."""
    name = error.recorded_as if isinstance(error, EvaError) else None
    return Record(
        messages="",
        answer="",
        stop_reason=EXCEPTION,
        num_rounds=0,
        total_tokens=0,
        estimated_visual_tokens=0,
        error=f"{name or type(error).__name__}: {error}",
        failure=SAMPLE if isinstance(error, (VideoError, PromptError)) else INFRASTRUCTURE,
        **_common(item, episode),
    )


def _common(item: Item, episode: Episode) -> dict[str, Any]:
    """What does not depend on how the sample ended."""
    return {
        "index": item.index,
        "videos": item.videos,
        "gt": item.ground_truth,
        # A key of the annotation that bears the name of a record's own cannot be carried.
        "extra": {key: value for key, value in item.extra.items() if key not in schema.OWN_KEYS},
        "video_file": episode.video_file,
        "video_duration_s": episode.video_duration_s,
        "waited": schema.Waited(**{name: round(seconds, 3) for name, seconds in asdict(episode.waits).items()}),
        "trajectory": [schema.to_json(_round(round_)) for round_ in episode.rounds],
        "opening": list(map(schema.to_json, map(_call, episode.looks))) or None,
        "question": first_question(item.prompt),
        "schema": schema.SCHEMA,
    }


def _round(round_: Round) -> schema.Round:
    reply = round_.reply
    calls = tuple(map(_call, round_.outcomes))
    return schema.Round(
        reply=reply.text,
        usage=schema.Usage(**asdict(reply.usage)),
        seconds=reply.seconds,
        finish_reason=reply.finish_reason,
        calls=calls,
        reasoning=reply.reasoning,
        tool_calls=list(map(asdict, reply.calls)) or None,
    )


def _call(look: ToolCallOutcome) -> schema.Call:
    return schema.Call(
        asked=_asked(look),
        budgeted=look.budgeted,
        executed=_executed(look),
        frames=tuple(map(str, look.extraction.frames)) if look.extraction else (),
        tokens=_tokens(look),
        error=look.error,
        reason=look.reason,
        labels_s=tuple(frame.time_s for frame in look.shown),
    )


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


def _executed(look: ToolCallOutcome) -> schema.Executed | None:
    if look.extraction is None:
        return None
    details = look.extraction.details
    return schema.Executed(
        **{key: details[key] for key in _EXECUTED if key in details}, seconds=look.extraction.seconds
    )


def _tokens(look: ToolCallOutcome) -> int:
    return look.budgeted.tokens if look.budgeted else 0


def recorded_reply(round_: schema.Round) -> Reply:
    """The reply of a recorded round, as an agent reads it."""
    natives = [mapping(call) for call in items(round_.tool_calls)]
    calls = tuple(NativeCall(*(text(native.get(key)) for key in ("id", "name", "arguments"))) for native in natives)
    counts = (round_.usage.prompt_tokens, round_.usage.completion_tokens, round_.usage.total_tokens)
    usage = Usage(*(None if count is None else int(count) for count in counts))
    return Reply(round_.reply, usage, round_.finish_reason, calls=calls)
