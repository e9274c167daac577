"""EVA: the protocol of the published figures (docs/protocol.md)."""

from __future__ import annotations

from eva.agent.interface import Agent
from eva.agent.play import Sample
from eva.protocol.messages import opening_messages, tool_response
from eva.protocol.reply import Answer, Calls, Stop, parse_reply


class Eva(Agent):
    """Plans, looks at frames, and answers. A reply whose calls all fail ends the sample."""

    async def run(self, s: Sample) -> Answer | Stop:
        s.messages = list(opening_messages(s.task.prompt, s.task.video).messages)
        while True:
            reply = await s.complete()
            action = parse_reply(reply.text)
            if not isinstance(action, Calls):
                return action
            outcomes = await s.calls(action.calls)
            errors = [outcome.error for outcome in outcomes if outcome.error]
            if len(errors) == len(outcomes):
                return Stop("; ".join(errors))
            frames = [frame for outcome in outcomes for frame in outcome.frames]
            s.messages.append(tool_response(frames, s.task.question))
