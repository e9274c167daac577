"""Which agent can read what a model replied."""

from __future__ import annotations

import json
from dataclasses import replace

from eva.agent.interface import Agent
from eva.agent.record import recorded_reply
from eva.agents.choice import AgentChoice
from eva.protocol.option import option_letters
from eva.protocol.reply import Answer, Calls
from eva.records.schema import Round
from eva.text import printable

# Those that let the model look.
CANDIDATES = ("eva", "tools", "hermes")
MOST_SHOWN = 300


def can_read(agent: Agent, round_: Round, question: str) -> bool:
    """Whether the reply answers, or has a call that can run."""
    action = agent.read(replace(recorded_reply(round_), letters=option_letters(question)))
    if isinstance(action, Calls):
        return any(call.error is None for call in action.calls)
    return isinstance(action, Answer)


def describe_unread(round_: Round, question: str) -> str:
    """The reply for a person, and which agent could read it."""
    calls = f" with the tool calls {json.dumps(round_.tool_calls)}" if round_.tool_calls else ""
    shown = printable(f"{round_.reply!r}{calls}", limit=MOST_SHOWN)
    readers = [name for name in CANDIDATES if can_read(AgentChoice(name).make(), round_, question)]
    advice = f"--agent {' or '.join(readers)} can read it" if readers else "no agent of this harness can read it"
    return f"the model replied {shown}; {advice}"
