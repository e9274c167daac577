"""An agent for serving.py: conversations of one form, with five frames in each round."""

from __future__ import annotations

from collections.abc import Sequence

from eva.agent.interface import Agent, Task
from eva.agent.tool_call import ToolCallOutcome
from eva.endpoint.completion import Reply
from eva.protocol.messages import Message, frame_parts, replace_question, text_part
from eva.protocol.reply import Action, CallAttempt, Calls

FRAMES = 5
WINDOW_S = 5
# All videos of the demo are longer than that and a window. A prime, so that rounds of equal length differ.
STARTS_S = 23


class FourRounds(Agent):
    """It looks again whatever the model says; `--max-turns 4` ends it after 20 frames."""

    def look_first(self, task: Task) -> Sequence[CallAttempt]:
        """See Agent."""
        return [look(task.index)]

    def open(self, task: Task, looks: Sequence[ToolCallOutcome]) -> list[Message]:
        """See Agent."""
        return replace_question(task.prompt, [*shown(looks), text_part(f"\n{task.question}")])

    def read(self, reply: Reply) -> Action:
        """See Agent. Nothing of a sample is kept: the length of the prompt decides where the next round looks."""
        return Calls((look(int(reply.usage.prompt_tokens or 0)),))

    def respond(self, task: Task, outcomes: Sequence[ToolCallOutcome]) -> list[Message]:
        """See Agent."""
        return [{"role": "user", "content": [*shown(outcomes), text_part(f"\n{task.question}")]}]


def look(number: int) -> CallAttempt:
    start_s = number % STARTS_S
    return CallAttempt.of(start_time=start_s, end_time=start_s + WINDOW_S, nframes=FRAMES, resize=0.4)


def shown(outcomes: Sequence[ToolCallOutcome]) -> list[Message]:
    return frame_parts([frame for outcome in outcomes for frame in outcome.shown])
