"""A record and its replay -> what differs, and in which round. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from eva.agent.record import BAD_REQUEST_ERROR, exception_record
from eva.dataset.items import Item
from eva.errors import EvaError
from eva.protocol.messages import TURN_START
from eva.records.schema import Call, Executed, Record, transcript
from eva.replay.loop import prompted_replies

_OF_ANNOTATION = ("gt", "videos")
# Also those; records without a schema number lack them.
_SINCE_SCHEMA_1 = ("question", "extra")
_IN_LAST_ROUND = ("answer", "stop_reason", "num_rounds", "total_tokens", "error")
_OF_CALL = ("asked", "budgeted", "tokens", "error", "labels_s")
_OF_FRAMES = ("start_s", "end_s", "indices", "times_s", "width", "height")
_EXCERPT = 60


@dataclass(frozen=True)
class Divergence:
    """A field that the replay makes another value of.

    `round` counts the replies from 1; 0 is the opening. It is None where the field belongs to no round.
    """

    index: int
    round: int | None
    field: str
    recorded: Any
    replayed: Any


def compare(record: Record, replayed: Record, item: Item, *, frames_cut: bool) -> Iterator[Divergence]:
    """What differs between a record and its replay."""
    if record.messages != replayed.messages:
        yield _first_difference(record, replayed, prompted_replies(item))
    named = (*_OF_ANNOTATION, "estimated_visual_tokens")
    since = () if record.schema is None else (*_SINCE_SCHEMA_1, "failure", "refusals")
    yield from _field_differences(record, replayed, (*named, *since))
    yield from _field_differences(record, replayed, _IN_LAST_ROUND, number=len(replayed.rounds))
    for number, (said, again) in enumerate(zip(record.rounds, replayed.rounds, strict=False), start=1):
        if record.schema is not None and said.request != again.request:
            excerpts = (transcript(one.request)[:_EXCERPT] for one in (said, again))
            yield Divergence(record.index, number, "request", *excerpts)
        if len(said.calls) != len(again.calls):
            counts = (f"{len(one.calls)} calls" for one in (said, again))
            yield Divergence(record.index, number, "trajectory", *counts)
        for pair in zip(said.calls, again.calls, strict=False):
            was, now = (_call_facts(call, frames_cut=frames_cut) for call in pair)
            # What a record does not say is no difference.
            if names := [name for name, value in was.items() if value is not None and value != now[name]]:
                values = ({name: facts[name] for name in names} for facts in (was, now))
                yield Divergence(record.index, number, "trajectory", *values)


def compare_exception(record: Record, item: Item) -> Iterator[Divergence]:
    """What is wrong with the record of a sample that ended as an exception, of which there is no conversation."""
    named = (*_OF_ANNOTATION, "answer", "num_rounds", "total_tokens", "estimated_visual_tokens")
    since = () if record.schema is None else _SINCE_SCHEMA_1
    return _field_differences(record, exception_record(item, EvaError("")), (*named, *since))


def _field_differences(
    record: Record, replayed: Record, names: tuple[str, ...], *, number: int | None = None
) -> Iterator[Divergence]:
    for name in names:
        said, again = _comparable(record, name), _comparable(replayed, name)
        if said != again:
            yield Divergence(record.index, number, name, said, again)


def _comparable(record: Record, name: str) -> Any:
    value = getattr(record, name)
    if name == "extra":
        return json.dumps(value, sort_keys=True)  # NaN is not equal to itself
    if name == "error" and record.trajectory is None and value.startswith(f"{BAD_REQUEST_ERROR}: "):
        return BAD_REQUEST_ERROR  # only the server knows what it said
    return value


def _first_difference(record: Record, replayed: Record, prompted: int) -> Divergence:
    pairs = enumerate(zip_longest(record.messages, replayed.messages))
    place = next(number for number, (one, other) in pairs if one != other)
    begun = record.messages[:place].count(f"{TURN_START}assistant")
    shown = slice(max(0, place - _EXCERPT // 2), place + _EXCERPT)
    return Divergence(
        record.index, max(0, begun - prompted), "messages", record.messages[shown], replayed.messages[shown]
    )


def _call_facts(call: Call, *, frames_cut: bool) -> dict[str, Any]:
    executed = call.executed or Executed()
    of_frames = {name: getattr(executed, name) for name in _OF_FRAMES} if frames_cut else {}
    return {name: getattr(call, name) for name in _OF_CALL} | of_frames
