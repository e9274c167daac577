"""An agent for serving.py: conversations of one form, with five frames in each round."""

from __future__ import annotations

from eva import Agent, Answer, Scale, Stop
from eva.agent.play import Sample
from eva.protocol.messages import Message, frame_parts, replace_question, text_part

FRAMES = 5
WINDOW_S = 5
# All videos of the demo are longer than that and a window. A prime, so that rounds of equal length differ.
STARTS_S = 23


class FourRounds(Agent):
    """It looks again whatever the model says; `--max-turns 4` ends it after 20 frames."""

    async def run(self, s: Sample) -> Answer | Stop:
        """The length of the prompt decides where the next round looks."""
        s.messages = replace_question(s.task.prompt, await look(s, s.task.index))
        while True:
            reply = await s.complete()
            s.messages.append({"role": "user", "content": await look(s, int(reply.usage.prompt_tokens or 0))})


async def look(s: Sample, number: int) -> list[Message]:
    """The frames of a window, and the question behind them."""
    start_s = number % STARTS_S
    frames = await s.frames(start=start_s, end=start_s + WINDOW_S, n=FRAMES, size=Scale(0.4))
    return [*frame_parts(frames), text_part(f"\n{s.task.question}")]
