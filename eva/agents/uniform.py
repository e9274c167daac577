"""Evenly spaced frames of the whole video: what the same model reaches without choosing where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eva.agent.interface import Agent, Scale, Task
from eva.agent.play import Sample
from eva.protocol.budget import fit_frame, visual_tokens
from eva.protocol.messages import Frame, Message, frame_parts, replace_question, text_part
from eva.protocol.option import ANSWER_FORM
from eva.protocol.reply import Answer, Stop


@dataclass(frozen=True)
class Uniform(Agent):
    """One request with `nframes` frames of at most `frame_tokens` visual tokens each.

    Where `spent` has the visual tokens that another run spent on a question, as many frames as cost about the same.
    """

    nframes: int
    frame_tokens: int
    pixels_per_token: int
    spent: Mapping[int, int] | None = None

    async def run(self, s: Sample) -> Answer | Stop:
        video = s.task.video
        size = {"width": video.width, "height": video.height, "side": self.pixels_per_token}
        ratio = fit_frame(self.frame_tokens, **size)
        count = self._count(s.task.index, visual_tokens(1, ratio, **size))
        frames: Sequence[Frame] = ()
        if count:
            frames = await s.frames(start=0, end=video.duration_s, n=count, size=Scale(ratio))
        s.messages = ask(s.task, frames)
        reply = await s.complete()
        return Answer(s.task.find_option(reply.text))

    def _count(self, index: int, frame_tokens: int) -> int:
        if self.spent is None:
            return self.nframes
        spent = self.spent[index]
        return max(1, round(spent / frame_tokens)) if spent else 0


def ask(task: Task, frames: Sequence[Frame]) -> list[Message]:
    """The prompt's turns, with the frames before the question."""
    question = text_part(f"\n{task.question}\n{ANSWER_FORM}")
    return replace_question(task.prompt, [*frame_parts(frames), question])
