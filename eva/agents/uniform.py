"""Evenly spaced frames of the whole video: what the same model reaches without choosing where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eva.agent.interface import Agent, Task
from eva.agent.tool_call import ToolCallOutcome
from eva.protocol.budget import fit_frame, visual_tokens
from eva.protocol.messages import Message, frame_parts, replace_question, text_part
from eva.protocol.option import ANSWER_FORM
from eva.protocol.reply import CallAttempt


@dataclass(frozen=True)
class Uniform(Agent):
    """One request with `nframes` frames of at most `frame_tokens` visual tokens each.

    Where `spent` has the visual tokens that another run spent on a question, as many frames as cost about the same.
    """

    nframes: int
    frame_tokens: int
    pixels_per_token: int
    spent: Mapping[int, int] | None = None

    def look_first(self, task: Task) -> Sequence[CallAttempt]:
        """See Agent."""
        size = {"width": task.video.width, "height": task.video.height, "side": self.pixels_per_token}
        resize = fit_frame(self.frame_tokens, **size)
        nframes = self._count(task, visual_tokens(1, resize, **size))
        window = {"start_time": 0, "end_time": task.video.duration_s}
        return [CallAttempt.of(**window, nframes=nframes, resize=resize)] if nframes else []

    def _count(self, task: Task, frame_tokens: int) -> int:
        if self.spent is None:
            return self.nframes
        spent = self.spent[task.index]
        return max(1, round(spent / frame_tokens)) if spent else 0

    def open(self, task: Task, looks: Sequence[ToolCallOutcome]) -> list[Message]:
        """See Agent."""
        frames = [frame for look in looks for frame in look.shown]
        question = text_part(f"\n{task.question}\n{ANSWER_FORM}")
        return replace_question(task.prompt, [*frame_parts(frames), question])
