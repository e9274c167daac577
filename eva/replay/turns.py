"""A record -> the replies of the model in it. Pure."""

from __future__ import annotations

from eva.dataset.items import Item
from eva.endpoint.completion import Reply, Usage
from eva.records import schema
from eva.records.read_transcript import find_replies
from eva.records.schema import Record


def recorded_replies(record: Record, item: Item) -> list[Reply]:
    """The replies, from the trajectory, or from the transcript in a record of the reference.

    A transcript does not say the tokens of a reply. Each then gets those that the record names for the last one.
    """
    if record.trajectory is not None:
        return [Reply(one.reply, _usage(one.usage), one.finish_reason) for one in record.rounds]
    usage = Usage(0, 0, int(record.total_tokens or 0))
    return [Reply(text, usage, None) for text in find_replies(record.messages)[prompted_replies(item) :]]


def prompted_replies(item: Item) -> int:
    """How many assistant turns the prompt itself has."""
    return sum(turn["role"] == "assistant" for turn in item.prompt)


def _usage(usage: schema.Usage) -> Usage:
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    return Usage(*(int(count or 0) for count in counts))
