"""Which agent can read what a model replied. A reply is never given to an agent a second time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from eva.agent.record import recorded_reply
from eva.agents import hermes, tools
from eva.endpoint.completion import Reply
from eva.protocol.reply import Action, Answer, Calls, parse_reply
from eva.records.schema import Record, Round
from eva.text import printable

MOST_SHOWN = 300
# Of the agents that let the model look, how they read a reply to a question.
READERS: Mapping[str, Callable[[Reply, str], Action]] = {
    "eva": lambda reply, question: parse_reply(reply.text),
    "tools": tools.read,
    "hermes": hermes.read,
}


def was_read(record: Record, number: int) -> bool:
    """Whether the agent made something of the reply of this round, counted from 0: an answer, or a call that could
    run."""
    answered = bool(record.answer) and number == len(record.rounds) - 1
    return answered or any(call.error is None or call.budgeted is not None for call in record.rounds[number].calls)


def describe_unread(round_: Round, question: str) -> str:
    """The reply for a person, and which agent could read it."""
    calls = f" with the tool calls {json.dumps(round_.tool_calls)}" if round_.tool_calls else ""
    shown = printable(f"{round_.reply!r}{calls}", limit=MOST_SHOWN)
    readers = [name for name, read in READERS.items() if _is_read(read(recorded_reply(round_), question))]
    advice = f"--agent {' or '.join(readers)} can read it" if readers else "no agent of this harness can read it"
    return f"the model replied {shown}; {advice}"


def _is_read(action: Action) -> bool:
    if isinstance(action, Calls):
        return any(call.error is None for call in action.calls)
    return isinstance(action, Answer)
