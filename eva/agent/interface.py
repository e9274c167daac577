"""What an agent is: one coroutine that plays one sample (docs/agents.md).

All else of a run is the same for every agent: frames, servers, outages, cache, records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from eva.endpoint.completion import MAX_TOKENS
from eva.protocol.messages import VideoInfo, first_question
from eva.protocol.option import find_option, option_letters
from eva.protocol.reply import Answer, Stop

if TYPE_CHECKING:
    from eva.agent.play import Sample

MAX_TURNS = 6


@dataclass(frozen=True)
class AgentSettings:
    """What an agent is meant to run with: the most replies of a sample, and the most tokens of a reply. A flag of the
    run overrides them."""

    max_turns: int = MAX_TURNS
    max_tokens: int = MAX_TOKENS


@dataclass(frozen=True)
class Scale:
    """The size of frames: this share of the video's width and height."""

    ratio: float


@dataclass(frozen=True)
class TaskVideo(VideoInfo):
    """A video of a question: its header, its name in the annotation, and its file.

    `fps` and `frames` come from the index of the file, once the video was opened by `Sample.open`. Of a further video
    all is zero until then.
    """

    name: str = ""
    path: Path = Path()
    fps: float | None = None
    frames: int | None = None


@dataclass
class Task:
    """What is asked: the index of the question, the turns of its prompt, its videos, further keys."""

    index: int
    prompt: Sequence[Mapping[str, str]]
    videos: list[TaskVideo]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def video(self) -> TaskVideo:
        """The first video."""
        return self.videos[0]

    @property
    def question(self) -> str:
        """The text of the first user turn, stripped."""
        return first_question(self.prompt)

    def find_option(self, text: str) -> str:
        """The answer in a reply to this question, or the empty text (docs/agents.md, 'Answers')."""
        return find_option(text, option_letters(self.question))


class Agent:
    """The base of all agents. One object plays all samples, many at a time: what belongs to one is local to `run`."""

    settings: ClassVar[AgentSettings] = AgentSettings()

    async def run(self, s: Sample) -> Answer | Stop:
        """Play one sample: ask for replies and frames by `s`, and end with an answer or the reason for none."""
        raise NotImplementedError
