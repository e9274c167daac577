"""EVA: the protocol of the published figures (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Sequence

from eva.agent.interface import Agent, Task
from eva.agent.tool_call import ToolCallOutcome
from eva.endpoint.completion import Reply
from eva.protocol.messages import Message, opening_messages, tool_response
from eva.protocol.reply import Action, NoAction, parse_reply


class Eva(Agent):
    """Plans, looks at frames, and answers. A reply whose calls all fail ends the sample."""

    def open(self, task: Task, looks: Sequence[ToolCallOutcome]) -> list[Message]:
        """See Agent."""
        return list(opening_messages(task.prompt, task.video).messages)

    def read(self, reply: Reply) -> Action:
        """See Agent."""
        return parse_reply(reply.text)

    def respond(self, task: Task, outcomes: Sequence[ToolCallOutcome]) -> list[Message] | NoAction:
        """See Agent."""
        errors = [outcome.error for outcome in outcomes if outcome.error]
        if len(errors) == len(outcomes):
            return NoAction("; ".join(errors))
        return [tool_response([frame for outcome in outcomes for frame in outcome.shown], task.question)]
