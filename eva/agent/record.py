"""A finished sample -> its record (eva/records/schema.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eva.agent.play import AgentFaultError, Episode
from eva.agent.tool_call import Outcome
from eva.agent.transcript import Transcribe
from eva.dataset.items import Item
from eva.endpoint.completion import NativeCall, Reply
from eva.errors import EvaError, VideoError
from eva.json_text import items, mapping, text
from eva.protocol.messages import PromptError, clock, first_question
from eva.protocol.stop_reasons import AGENT, BAD_REQUEST, EXCEPTION, INFRASTRUCTURE, MODEL, SAMPLE
from eva.records.schema import OWN_KEYS, SCHEMA, Call, Record, Round, Waited, to_json

BAD_REQUEST_ERROR = "OpenAI BadRequestError after retries"


def episode_record(item: Item, episode: Episode, transcribe: Transcribe) -> Record:
    """The record of an episode that ended by the protocol. Raises AgentFaultError where the tokenizer cannot write its
    conversation as text."""
    refused = episode.stop_reason == BAD_REQUEST
    try:
        messages = transcribe(episode.messages)
        rounds = [
            replace(round_, request=transcribe(episode.abandoned[number])) if number in episode.abandoned else round_
            for number, round_ in enumerate(_rounds(episode), start=1)
        ]
    except Exception as error:  # of whatever kind a chat template raises
        raise AgentFaultError(
            f"the tokenizer cannot write the agent's messages as text (--tokenizer none keeps them): {error}"
        ) from error
    return Record(
        messages=messages,
        answer=episode.answer,
        stop_reason=episode.stop_reason,
        num_rounds=len(rounds),
        total_tokens=rounds[-1].usage.total_tokens if rounds else 0,
        estimated_visual_tokens=sum(outcome.call.tokens or 0 for outcome in episode.all_outcomes()),
        error=BAD_REQUEST_ERROR if refused else "",
        error_detail=episode.refusal if refused else "",
        failure=None if episode.answer else MODEL,
        trajectory=[to_json(one) for one in rounds],
        **_common(item, episode),
    )


def exception_record(item: Item, error: Exception, episode: Episode | None = None) -> Record:
    """The record of a sample that failed by no fault of the model; the rounds that it completed stay visible."""
    name = error.recorded_as if isinstance(error, EvaError) else None
    episode = episode or Episode()
    if isinstance(error, (VideoError, PromptError)):
        failure = SAMPLE
    else:
        failure = AGENT if isinstance(error, AgentFaultError) else INFRASTRUCTURE
    return Record(
        messages="",
        answer="",
        stop_reason=EXCEPTION,
        num_rounds=0,
        total_tokens=0,
        estimated_visual_tokens=0,
        error=f"{name or type(error).__name__}: {error}",
        failure=failure,
        trajectory=[to_json(one) for one in _rounds(episode)],
        **_common(item, episode),
    )


def _common(item: Item, episode: Episode) -> dict[str, Any]:
    """What does not depend on how the sample ended."""
    return {
        "index": item.index,
        "videos": item.videos,
        "gt": item.ground_truth,
        # A key of the annotation that bears the name of a record's own cannot be carried.
        "extra": {key: value for key, value in item.extra.items() if key not in OWN_KEYS},
        "video_file": episode.video_file,
        "video_duration_s": episode.video_duration_s,
        "waited": Waited(round(episode.seat_s, 3), round(episode.server_s, 3), round(episode.frames_s, 3)),
        "opening": [to_json(call) for call in _calls(episode, episode.outcomes[0])] or None,
        "question": first_question(item.prompt),
        "schema": SCHEMA,
        "refusals": tuple(episode.refusals),
    }


def _rounds(episode: Episode) -> list[Round]:
    pairs = zip(episode.rounds, episode.outcomes[1:], strict=True)
    return [replace(round_, calls=_calls(episode, outcomes)) for round_, outcomes in pairs]


def _calls(episode: Episode, outcomes: list[Outcome | None]) -> tuple[Call, ...]:
    """The calls that ended. A frame that was sent without its label has none in the record."""
    done = [outcome for outcome in outcomes if outcome is not None]
    return tuple(
        outcome.call
        if all((frame.url, f"[{clock(frame.label_s)}]:") in episode.labelled for frame in outcome.frames)
        else replace(outcome.call, labels_s=())
        for outcome in done
    )


def recorded_reply(round_: Round) -> Reply:
    """The reply of a recorded round, as an agent reads it."""
    natives = [mapping(call) for call in items(round_.tool_calls)]
    calls = tuple(NativeCall(*(text(native.get(key)) for key in ("id", "name", "arguments"))) for native in natives)
    return Reply(round_.reply, round_.usage, round_.finish_reason, calls=calls)
