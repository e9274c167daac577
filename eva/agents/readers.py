"""Which agent can read what a model replied."""

from __future__ import annotations

import json

from eva.agent.interface import Agent
from eva.agents.choice import AgentChoice
from eva.endpoint.completion import NativeCall, Reply, Usage
from eva.json_text import items, mapping, text
from eva.protocol.reply import Answer, Calls
from eva.records.schema import Round
from eva.text import printable

# Those that let the model look.
CANDIDATES = ("eva", "tools", "hermes")
MOST_SHOWN = 300


def can_read(agent: Agent, round_: Round) -> bool:
    """Whether the reply answers, or has a call that can run."""
    action = agent.read(_reply(round_))
    if isinstance(action, Calls):
        return any(call.error is None for call in action.calls)
    return isinstance(action, Answer)


def describe_unread(round_: Round) -> str:
    """The reply for a person, and which agent could read it."""
    calls = f" with the tool calls {json.dumps(round_.tool_calls)}" if round_.tool_calls else ""
    shown = printable(f"{round_.reply!r}{calls}", limit=MOST_SHOWN)
    readers = [name for name in CANDIDATES if can_read(AgentChoice(name).make(), round_)]
    advice = f"--agent {' or '.join(readers)} can read it" if readers else "no agent of this harness can read it"
    return f"the model replied {shown}; {advice}"


def _reply(round_: Round) -> Reply:
    natives = [mapping(call) for call in items(round_.tool_calls)]
    calls = tuple(NativeCall(*(text(native.get(key)) for key in ("id", "name", "arguments"))) for native in natives)
    return Reply(round_.reply, Usage(0, 0, 0), None, calls=calls)
