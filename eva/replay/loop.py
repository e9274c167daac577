"""One record, played again by the ordinary loop. Its replies take the model's place."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva.agent.interface import Agent
from eva.agent.play import AgentFaultError, Episode
from eva.agent.record import episode_record, exception_record
from eva.agent.sample import SampleRunner, play
from eva.agent.tool_call import CallRunner, CallSettings
from eva.agent.transcript import Transcribe
from eva.dataset.items import Item
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError
from eva.errors import EvaError
from eva.frames.tool import (
    CallFailedError,
    Extraction,
    FoundVideo,
    FrameCall,
    FrameCounts,
    FrameTool,
    FrameToolError,
    ToolSettings,
)
from eva.protocol.messages import Message, PromptError, VideoInfo
from eva.protocol.stop_reasons import BAD_REQUEST
from eva.records.schema import Record, Refusal, read_record, record_json
from eva.replay.turns import recorded_replies
from eva.replay.videos import ShownVideo
from eva.video.sampling import SelectionError, Window, output_size, sample_times

# The stop reason of a replay in which the loop asks for a reply that the record does not have.
GOES_ON = "the loop goes on"
# Stands for each frame that is not made.
NO_FILE = Path("/not-made")


class NoFurtherReplyError(EvaError):
    """The loop asks for a reply that the record does not have."""


@dataclass(frozen=True)
class PlanningTool:
    """A frame tool that says how many frames a call gives, with `--fallback`, and makes none.

    It refuses what the real one refuses for its arguments. That a file cannot be decoded is not known here.
    """

    settings: ToolSettings
    video: VideoInfo
    counts: FrameCounts = field(default_factory=FrameCounts)

    async def start(self) -> None:
        """See FrameTool."""

    async def probe(self, annotated: Path) -> FoundVideo:
        """See FrameTool."""
        return FoundVideo(annotated, 0, 0, self.video)

    async def count(self, video: Path) -> tuple[float, int]:
        raise FrameToolError(f"the rate and the number of frames of {video} are known with its file alone")

    async def extract(self, video: Path, call: FrameCall, *, sample: int) -> Extraction:
        """See FrameTool; each frame is a name without a file."""
        try:
            places = sample_times(Window(call.start_s, call.end_s), call.nframes)
            output_size(self.video.width, self.video.height, resize=call.resize, factor=self.settings.factor)
        except SelectionError as error:
            raise CallFailedError(str(error)) from error
        return Extraction((NO_FILE,) * len(places), 0.0, {})

    def release(self, sample: int) -> None:
        """See FrameTool."""

    async def close(self) -> None:
        """See FrameTool."""


@dataclass(frozen=True)
class Replayer:
    """Plays records of an agent again. `tool` cuts the frames of videos that have a file, if `cut_frames`."""

    agent: Agent
    transcribe: Transcribe
    settings: CallSettings
    max_turns: int
    tool: FrameTool
    root: Path
    cut_frames: bool

    def cuts(self, video: ShownVideo) -> bool:
        """Whether the frames of a video are cut."""
        return self.cut_frames and video.path is not None

    async def replay(self, record: Record, item: Item, video: ShownVideo) -> Record:
        """What the loop makes of the replies of a record, as it is read from a file. Raises FrameToolUnusableError."""
        # A count that cannot be one is read as unknown, also in the record.
        return read_record(record_json(await self._replay(record, item, video)))

    async def _replay(self, record: Record, item: Item, video: ShownVideo) -> Record:
        episode = Episode()
        try:
            await self._play(record, item, video, episode)
            return episode_record(item, episode, self.transcribe)
        except (PromptError, FrameToolError, AgentFaultError) as error:
            return exception_record(item, error, episode)
        finally:
            self.tool.release(item.index)

    async def _play(self, record: Record, item: Item, video: ShownVideo, episode: Episode) -> None:
        recorded = recorded_replies(record, item)
        replies = iter(recorded)
        refusals = deque(record.refusals)
        if record.stop_reason == BAD_REQUEST:  # only the server knows why
            refusals.append(Refusal(len(recorded), record.error_detail))

        async def complete(_: Sequence[Message], __: Mapping[str, Any]) -> Reply:
            if refusals and refusals[0].after <= len(episode.rounds):
                raise BadRequestError(refusals.popleft().detail)
            reply = next(replies, None)
            if reply is None:
                raise NoFurtherReplyError
            return reply

        tool = self.tool if self.cuts(video) else PlanningTool(self.tool.settings, video.info)
        runner = SampleRunner(self.agent, CallRunner(tool, self.settings), self.transcribe, self.root, self.max_turns)
        found = FoundVideo(video.path or Path(item.videos[0]), 0, 0, video.info)
        try:
            await play(self.agent, item, found, episode, runner, complete=complete)
        except NoFurtherReplyError:
            episode.stop(GOES_ON)
