"""What a model writes that plays with each agent, and an agent of one's own."""

from __future__ import annotations

import json
from typing import Any

ANSWER = "<answer>B</answer>"
OWN_AGENT = """
from eva import Agent, Answer
from eva.protocol.messages import replace_question


class MyAgent(Agent):
    async def run(self, s):
        s.messages = replace_question(s.task.prompt, f"Say a letter. {s.task.question}")
        reply = await s.complete()
        return Answer(s.task.find_option(reply.text))
"""


def window(start: float = 0, end: float = 2, nframes: int = 2, **more: Any) -> dict[str, Any]:
    return {"start_time": start, "end_time": end, "nframes": nframes, **more}


def native(*arguments: dict[str, Any] | str) -> dict[str, Any]:
    texts = [one if isinstance(one, str) else json.dumps(one) for one in arguments]
    calls = [["frame_select", text] for text in texts]
    return {"text": "I look.", "calls": calls, "finish_reason": "tool_calls"}


def hermes(*arguments: dict[str, Any] | str) -> str:
    calls = [
        one if isinstance(one, str) else json.dumps({"name": "frame_select", "arguments": one}) for one in arguments
    ]
    return "I look.\n" + "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in calls)
