"""One item from its video to its record. A failing sample never ends the run."""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from eva.agent.interface import Agent, Task, TaskVideo
from eva.agent.play import AgentFaultError, Complete, Episode, Sample
from eva.agent.record import episode_record, exception_record
from eva.agent.refusal import PictureUnreadableError, find_picture_problem
from eva.agent.tool_call import CallRunner, Outcome
from eva.agent.transcript import Transcribe
from eva.dataset.items import Item, video_path
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError, OutageError, RefusesAllError, UnansweredError, WeightsChangedError
from eva.frames.tool import FoundVideo, FrameToolUnusableError
from eva.protocol.messages import Message
from eva.protocol.reply import CallAttempt
from eva.records.schema import Record

log = logging.getLogger(__name__)

# Failures that are not the sample's: the schedule decides what happens next.
_NOT_THE_SAMPLES = (FrameToolUnusableError, OutageError, RefusesAllError, WeightsChangedError)


@dataclass(frozen=True)
class SampleRunner:
    """Runs samples. `timeout_s` is what an agent may take for one, the waiting for replies not counted."""

    agent: Agent
    call_runner: CallRunner
    transcribe: Transcribe
    video_root: Path
    max_turns: int
    timeout_s: float = math.inf
    _told: set[str] = field(default_factory=set)

    async def run(self, item: Item, complete: Complete) -> Record:
        """The item's record, also where the sample fails. Raises the failures of the servers and of the frame tool.

        An UnansweredError carries the record that the sample gets if it is given up."""
        episode = Episode()
        started_at = monotonic()
        try:
            await self._run(item, episode, complete)
            record = episode_record(item, episode, self.transcribe)
        except UnansweredError as unanswered:
            unanswered.record = _timed(exception_record(item, unanswered.failure, episode), started_at)
            raise
        except _NOT_THE_SAMPLES:
            raise
        except Exception as error:  # a failing sample never ends the run: its record and a line say what happened
            record = exception_record(item, error, episode)
            log.warning("sample %d (%r): %s%s", item.index, item.videos[0], record.error, self._traceback(error))
        finally:
            self.call_runner.tool.release(item.index)
        return _timed(record, started_at)

    async def _run(self, item: Item, episode: Episode, complete: Complete) -> None:
        annotated = video_path(item, self.video_root)
        asked_at = monotonic()
        found = await self.call_runner.tool.probe(annotated)
        episode.frames_s += monotonic() - asked_at
        if found.path != annotated:
            episode.video_file = str(found.path.relative_to(self.video_root))
        episode.video_duration_s = found.info.duration_s

        await play(self.agent, item, found, episode, self, complete=with_pictures_checked(complete, episode))

    def _traceback(self, error: Exception) -> str:
        """Of an error in an agent's code, once for each line of it."""
        cause = error.__cause__
        if not isinstance(error, AgentFaultError) or cause is None or str(error) in self._told:
            return ""
        self._told.add(str(error))
        return "\n" + "".join(traceback.format_exception(cause)).rstrip()


def with_pictures_checked(complete: Complete, episode: Episode) -> Complete:
    """`complete`, which raises PictureUnreadableError where a request is refused for a picture of the episode."""

    async def ask(messages: Sequence[Message], fields: Mapping[str, Any]) -> Reply:
        try:
            return await complete(messages, fields)
        except BadRequestError as error:
            files = [Path(file) for outcome in episode.all_outcomes() for file in outcome.call.frames]
            if problem := await asyncio.to_thread(find_picture_problem, str(error), files):
                raise PictureUnreadableError(problem) from error
            raise

    return ask


async def play(
    agent: Agent, item: Item, found: FoundVideo, episode: Episode, runner: SampleRunner, *, complete: Complete
) -> None:
    """Play one sample on a video that was found; what happens is in `episode`. Raises as Sample.play."""
    tool = runner.call_runner.tool
    first = TaskVideo(**vars(found.info), name=item.videos[0], path=found.path)
    others = [TaskVideo(0.0, 0, 0, name) for name in item.videos[1:]]

    async def run_call(call: CallAttempt, video: TaskVideo, *, budget: bool) -> Outcome:
        return await runner.call_runner.run(call, video.path, video, sample=item.index, budget=budget)

    async def open_video(number: int) -> TaskVideo:
        name = item.videos[number]
        video = first
        if number:
            other = await tool.probe(video_path(replace(item, videos=(name,)), runner.video_root))
            video = TaskVideo(**vars(other.info), name=name, path=other.path)
        fps, frames = await tool.count(video.path)
        return replace(video, fps=fps, frames=frames)

    task = Task(item.index, item.prompt, [first, *others], item.extra)
    sample = Sample(
        task,
        episode,
        complete=complete,
        run_call=run_call,
        open_video=open_video,
        max_turns=runner.max_turns,
        timeout_s=runner.timeout_s,
    )
    await sample.play(agent)


def _timed(record: Record, started_at: float) -> Record:
    return replace(record, seconds=round(monotonic() - started_at, 3))
