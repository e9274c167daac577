"""The question alone: what can be answered without the video."""

from __future__ import annotations

from collections.abc import Sequence

from eva.agent.interface import Agent, Task
from eva.agent.tool_call import ToolCallOutcome
from eva.protocol.messages import Message, replace_question
from eva.protocol.option import ANSWER_FORM


class Blind(Agent):
    """One request, without frames."""

    def open(self, task: Task, looks: Sequence[ToolCallOutcome]) -> list[Message]:
        """See Agent."""
        return replace_question(task.prompt, f"{task.question}\n{ANSWER_FORM}")
