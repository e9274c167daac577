"""A record -> the replies of the model in it. Pure."""

from __future__ import annotations

from eva.agent.record import recorded_reply
from eva.dataset.items import Item
from eva.endpoint.completion import Reply
from eva.protocol.reply import Usage
from eva.records.read_transcript import find_replies
from eva.records.schema import Record, transcript


def recorded_replies(record: Record, item: Item) -> list[Reply]:
    """The replies, from the trajectory, or from the transcript in a record of the reference.

    A transcript does not say the tokens of a reply. Each then gets those that the record names for the last one.
    """
    if record.trajectory is not None:
        return list(map(recorded_reply, record.rounds))
    usage = Usage(None, None, record.total_tokens)
    return [Reply(text, usage, None) for text in find_replies(transcript(record.messages))[prompted_replies(item) :]]


def prompted_replies(item: Item) -> int:
    """How many assistant turns the prompt itself has."""
    return sum(turn["role"] == "assistant" for turn in item.prompt)
