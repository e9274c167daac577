"""Two records of one sample -> where the agent first did something else. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eva.protocol.messages import TURN_END, TURN_START


@dataclass(frozen=True)
class Step:
    """A round, as small as it can be compared: digests of the reply and of the frames that it brought.

    `seen` is None where a record does not say, as the reference's do not.
    """

    reply: bytes
    seen: bytes | None = None


def steps(record: Mapping[str, Any]) -> tuple[Step, ...]:
    """The rounds of a record; of one without a trajectory, those that its transcript shows."""
    rounds = record.get("trajectory")
    if isinstance(rounds, list):
        return tuple(_step(round_) for round_ in rounds if isinstance(round_, dict))
    return tuple(Step(_digest(text)) for role, text in turns(record.get("messages")) if role == "assistant")


def first_difference(ours: Sequence[Step], theirs: Sequence[Step]) -> int | None:
    """The first round, counted from 0, in which the replies differ, or the frames where both say them.

    None if there is none. A trajectory that goes on where the other one ends differs in its next round.
    """
    for number, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        known = our.seen is not None and their.seen is not None
        if our.reply != their.reply or (known and our.seen != their.seen):
            return number
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def turns(messages: object) -> list[tuple[str, str]]:
    """A transcript's turns as (role, text); what is not ChatML is one turn without a role."""
    if not isinstance(messages, str) or not messages.strip():
        return []
    before, *parts = messages.split(TURN_START)
    if not parts:
        return [("", before.strip())]
    return [_turn(part) for part in parts]


def _turn(part: str) -> tuple[str, str]:
    role, _, text = part.partition("\n")
    return role.strip(), text.partition(TURN_END)[0].strip()


def _step(round_: Mapping[str, Any]) -> Step:
    calls = round_.get("calls")
    seen = [_seen(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    reply = round_.get("reply")
    # Of a reply the transcript keeps no white space at its ends.
    return Step(_digest(reply.strip() if isinstance(reply, str) else ""), _digest(json.dumps(seen)))


def _seen(call: Mapping[str, Any]) -> list[Any]:
    executed = call.get("executed")
    executed = executed if isinstance(executed, dict) else {}
    return [call.get("error"), *(executed.get(key) for key in ("indices", "width", "height"))]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", errors="surrogatepass"), digest_size=8).digest()
