"""Two records of one sample -> where the agent first did something else. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eva.records.read_transcript import find_replies
from eva.records.schema import Call, Executed, Record, Round, transcript


@dataclass(frozen=True)
class Step:
    """A round, as small as it can be compared: digests of the reply and of the frames that it brought.

    `seen` is None where a record does not say, as the reference's do not.
    """

    reply: bytes
    seen: bytes | None = None


def steps(record: Record) -> tuple[Step, ...]:
    """The rounds of a record; of one without a trajectory, those that its transcript shows."""
    if record.trajectory is not None:
        return tuple(map(_step, record.rounds))
    return tuple(Step(_digest(text.strip())) for text in find_replies(transcript(record.messages)))


def first_difference(ours: Sequence[Step], theirs: Sequence[Step]) -> int | None:
    """The first round, counted from 0, in which the replies differ, or the frames where both say them.

    None if there is none. A trajectory that goes on where the other one ends differs in its next round.
    """
    for number, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        known = our.seen is not None and their.seen is not None
        if our.reply != their.reply or (known and our.seen != their.seen):
            return number
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def _step(round_: Round) -> Step:
    # Of a reply the transcript keeps no white space at its ends.
    return Step(_digest(round_.reply.strip()), _digest(json.dumps([_seen(call) for call in round_.calls])))


def _seen(call: Call) -> list[Any]:
    executed = call.executed or Executed()
    return [call.error, executed.indices, executed.width, executed.height]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", errors="surrogatepass"), digest_size=8).digest()
