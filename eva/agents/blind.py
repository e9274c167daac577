"""The question alone: what can be answered without the video."""

from __future__ import annotations

from eva.agent.interface import Agent
from eva.agent.play import Sample
from eva.protocol.messages import replace_question
from eva.protocol.option import ANSWER_FORM
from eva.protocol.reply import Answer, Stop


class Blind(Agent):
    """One request, without frames."""

    async def run(self, s: Sample) -> Answer | Stop:
        s.messages = replace_question(s.task.prompt, f"{s.task.question}\n{ANSWER_FORM}")
        reply = await s.complete()
        return Answer(s.task.find_option(reply.text))
