"""A record and its replay -> what differs, in which round, and why. Reads a video's header where that decides why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from eva.agent.record import BAD_REQUEST_ERROR, exception_record
from eva.dataset.items import Item
from eva.errors import EvaError, VideoError
from eva.frames.tool import MAX_FRAMES
from eva.protocol.messages import TURN_START
from eva.protocol.stop_reasons import CALL_FAILED, EXCEPTION
from eva.records.schema import Call, Executed, Record, Round, transcript
from eva.replay.turns import prompted_replies
from eva.replay.videos import FRAME_MARK, ShownVideo
from eva.video.container import open_stream
from eva.video.packets import is_chosen_by_time

# Causes. The documented ones are rows of docs/differences.md.
UNEXPLAINED = "unexplained"
MISSING_VIDEO = "missing video"
NOT_CUT = "the frame tool failed, which only --replay-frames can check"
DOCUMENTED = "documented difference: "
NO_DURATION = DOCUMENTED + "the reference crashes on webm, mkv and flv"
CRASH = DOCUMENTED + "the reference crashes on strings, on values that are not numbers, or on null content"
TOO_MANY_FRAMES = DOCUMENTED + f"a call for more than {MAX_FRAMES} frames fails"
UNKNOWN_TO_DECORD = DOCUMENTED + "the reference opens such a video only with its second decoder"

_OF_ANNOTATION = ("gt", "videos")
# Also those; the records of the reference lack them.
_SINCE_SCHEMA_1 = ("question", "extra", "failure", "refusals")
_IN_LAST_ROUND = ("answer", "stop_reason", "num_rounds", "total_tokens", "error")
_OF_CALL = ("asked", "budgeted", "tokens", "error", "labels_s")
_OF_FRAMES = ("start_s", "end_s", "indices", "times_s", "width", "height")
_CRASHES = ("TypeError", "ValueError", "OverflowError")
# What Python says of a length that is None, and of arguments that are no numbers or of a reply that is null.
_OF_DURATION = re.compile(r"float\(\) argument must be .*'NoneType'")
_OF_VALUES = re.compile(
    r"can't multiply sequence|unsupported operand type|'.' not supported between|expected string or bytes-like"
    r"|cannot convert float (?:NaN|infinity)|(?:int|result) too large|repeated \w+ (?:is|are) too long|cannot fit 'int'"
    r"|embedded null|Exceeds the limit"
)
_WITHOUT_DURATION = (".webm", ".mkv", ".flv")
_EXCERPT = 60


@dataclass(frozen=True)
class Divergence:
    """A field that the replay makes another value of.

    `round` counts the replies from 1; 0 is the opening. It is None where the field belongs to no round.
    """

    index: int
    round: int | None
    field: str
    cause: str
    recorded: Any
    replayed: Any

    @property
    def documented(self) -> bool:
        return self.cause.startswith(DOCUMENTED)


def compare(record: Record, replayed: Record, item: Item, video: ShownVideo, *, frames_cut: bool) -> list[Divergence]:
    """What differs between a record and its replay, with the cause."""
    found = list(_find_divergences(record, replayed, item, frames_cut=frames_cut))
    if _is_reference(record) and _has_too_many_frames(record, replayed, found):
        return _explain(found, TOO_MANY_FRAMES, ("messages", "estimated_visual_tokens", *_IN_LAST_ROUND))
    if _tool_failed(record, replayed):
        cause = _cause_of_failure(record, video, frames_cut=frames_cut)
        return _explain(found, cause, ("messages", "stop_reason", "trajectory"))
    return found


def _explain(found: list[Divergence], cause: str, fields: tuple[str, ...]) -> list[Divergence]:
    """`found` with the cause in those fields that it changes."""
    return [replace(one, cause=cause) if one.field in fields else one for one in found]


def compare_exception(record: Record, item: Item, video: ShownVideo | None) -> list[Divergence]:
    """What is wrong with the record of a sample that ended as an exception, of which there is no conversation."""
    owed = exception_record(item, EvaError(""))
    named = _OF_ANNOTATION if record.schema is None else (*_OF_ANNOTATION, "question", "extra")
    names = (*named, "answer", "num_rounds", "total_tokens", "estimated_visual_tokens")
    found = [one for name in names for one in _field_divergence(record, owed, None, name)]
    # A prompt without a user turn ends the sample here too.
    asks = any(turn["role"] == "user" for turn in item.prompt)
    if asks and _is_reference(record) and record.error.partition(":")[0] in _CRASHES:
        cause = _cause_of_crash(record, video)
        found.append(Divergence(record.index, None, "stop_reason", cause, EXCEPTION, None))
    return found


def _cause_of_crash(record: Record, video: ShownVideo | None) -> str:
    """By the words of the error. Measured cases have the name of the error alone."""
    words = record.error.partition(": ")[2]
    if (not words or _OF_DURATION.match(words)) and _lacks_duration(record, video):
        return NO_DURATION
    return CRASH if not words or _OF_VALUES.match(words) else UNEXPLAINED


def _lacks_duration(record: Record, video: ShownVideo | None) -> bool:
    """Whether the stream names no duration, or, without the file, whether its name says so."""
    if video is None or video.path is None:
        return bool(record.videos) and record.videos[0].lower().endswith(_WITHOUT_DURATION)
    try:
        with open_stream(video.path) as (_, stream):
            return stream.duration is None
    except VideoError:
        return False


def _find_divergences(record: Record, replayed: Record, item: Item, *, frames_cut: bool) -> Iterator[Divergence]:
    last = len(replayed.rounds)
    named = _OF_ANNOTATION if record.schema is None else (*_OF_ANNOTATION, *_SINCE_SCHEMA_1)
    rounds = {**dict.fromkeys(named), **dict.fromkeys(_IN_LAST_ROUND, last), "estimated_visual_tokens": None}
    if record.messages != replayed.messages:
        yield _first_difference(record, replayed, prompted_replies(item))
    for name, number in rounds.items():
        yield from _field_divergence(record, replayed, number, name)
    for number, pair in enumerate(zip(record.rounds, replayed.rounds, strict=False), start=1):
        if record.schema is not None and pair[0].request != pair[1].request:
            yield unexplained(record, number, "request", *(transcript(one.request)[:_EXCERPT] for one in pair))
        for said, owed in _call_differences(*pair, frames_cut=frames_cut):
            yield unexplained(record, number, "trajectory", said, owed)


def _field_divergence(record: Record, owed: Record, number: int | None, name: str) -> Iterator[Divergence]:
    values = _comparable(record, name), _comparable(owed, name)
    if values[0] != values[1]:
        yield unexplained(record, number, name, *values)


def _comparable(record: Record, name: str) -> Any:
    value = getattr(record, name)
    if name == "extra":
        return json.dumps(value, sort_keys=True)  # NaN is not equal to itself
    if name == "error" and _is_reference(record) and value.startswith(f"{BAD_REQUEST_ERROR}: "):
        return BAD_REQUEST_ERROR  # only the server knows what it said
    return value


def unexplained(record: Record, number: int | None, name: str, recorded: Any, replayed: Any) -> Divergence:
    """A divergence of a field in a round."""
    return Divergence(record.index, number, name, UNEXPLAINED, recorded, replayed)


def _first_difference(record: Record, replayed: Record, prompted: int) -> Divergence:
    pairs = enumerate(zip_longest(record.messages, replayed.messages))
    place = next(number for number, (one, other) in pairs if one != other)
    begun = record.messages[:place].count(f"{TURN_START}assistant")
    shown = slice(max(0, place - _EXCERPT // 2), place + _EXCERPT)
    return unexplained(record, max(0, begun - prompted), "messages", record.messages[shown], replayed.messages[shown])


def _call_differences(one: Round, other: Round, *, frames_cut: bool) -> Iterator[tuple[Any, Any]]:
    """What differs in each call of a round. What a record does not say is no difference."""
    if len(one.calls) != len(other.calls):
        yield f"{len(one.calls)} calls", f"{len(other.calls)} calls"
    for call, again in zip(one.calls, other.calls, strict=False):
        said, owed = _details(call, frames_cut=frames_cut), _details(again, frames_cut=frames_cut)
        names = [name for name, value in said.items() if value is not None and value != owed[name]]
        if names:
            yield {name: said[name] for name in names}, {name: owed[name] for name in names}


def _details(call: Call, *, frames_cut: bool) -> dict[str, Any]:
    executed = call.executed or Executed()
    of_frames = {name: getattr(executed, name) for name in _OF_FRAMES} if frames_cut else {}
    return {name: getattr(call, name) for name in _OF_CALL} | of_frames


def _tool_failed(record: Record, replayed: Record) -> bool:
    """Whether the frame tool failed on a call that gives frames in the replay."""
    if record.rounds:
        pairs = zip(record.rounds, replayed.rounds, strict=False)
        calls = (both for one, other in pairs for both in zip(one.calls, other.calls, strict=False))
        return any(call.error == CALL_FAILED and again.frames for call, again in calls)
    last = replayed.rounds[-1].calls if replayed.rounds else ()
    return CALL_FAILED in record.stop_reason.split("; ") and any(call.frames for call in last)


def _is_reference(record: Record) -> bool:
    return record.schema is None and record.trajectory is None


def _has_too_many_frames(record: Record, replayed: Record, found: list[Divergence]) -> bool:
    """Whether the transcripts part at a call that fails here because it asks for more than MAX_FRAMES, which the record
    shows."""
    if transcript(record.messages).count(FRAME_MARK) <= MAX_FRAMES:
        return False
    parted = next((one.round for one in found if one.field == "messages"), None)
    calls = replayed.rounds[parted - 1].calls if parted and parted <= len(replayed.rounds) else ()
    budgets = (call.budgeted for call in calls if call.error == CALL_FAILED)
    return any(budgeted is not None and budgeted.nframes > MAX_FRAMES for budgeted in budgets)


def _cause_of_failure(record: Record, video: ShownVideo, *, frames_cut: bool) -> str:
    if video.path is None:
        return MISSING_VIDEO
    # Frames of any call show that the reference could open the video.
    shown = FRAME_MARK in transcript(record.messages)
    if _is_reference(record) and not shown and _is_unknown_to_decord(video.path):
        return UNKNOWN_TO_DECORD
    return UNEXPLAINED if frames_cut else NOT_CUT


def _is_unknown_to_decord(path: Path) -> bool:
    try:
        with open_stream(path) as (container, stream):
            return is_chosen_by_time(container, stream, stream.width)
    except VideoError:
        return False
