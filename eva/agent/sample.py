"""One item from its video to its record. A failing sample never ends the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic

from eva.agent.interface import Agent, Task
from eva.agent.loop import Complete, Episode, open_episode, run_episode
from eva.agent.record import episode_record, exception_record
from eva.agent.tool_call import CallRunner
from eva.agent.transcript import Transcribe
from eva.dataset.items import Item, video_path
from eva.endpoint.errors import OutageError, RefusesAllError, UnansweredError, WeightsChangedError
from eva.frames.tool import FrameToolUnusableError
from eva.records.schema import Record

log = logging.getLogger(__name__)

# Failures that are not the sample's: the schedule decides what happens next.
_NOT_THE_SAMPLES = (FrameToolUnusableError, OutageError, RefusesAllError, WeightsChangedError)


@dataclass(frozen=True)
class SampleRunner:
    """Runs samples."""

    agent: Agent
    call_runner: CallRunner
    transcribe: Transcribe
    video_root: Path
    max_turns: int

    async def run(self, item: Item, complete: Complete) -> Record:
        """The item's record, also where the sample fails. Raises the failures of the servers and of the frame tool.

        An UnansweredError carries the record that the sample gets if it is given up."""
        episode = Episode()
        started_at = monotonic()
        try:
            await self._run(item, episode, complete)
            record = episode_record(item, episode, self.transcribe(episode.messages))
        except UnansweredError as unanswered:
            unanswered.record = _timed(exception_record(item, unanswered.failure, episode), started_at)
            raise
        except _NOT_THE_SAMPLES:
            raise
        except Exception as error:  # a failing sample never ends the run: its record and a line say what happened
            record = exception_record(item, error, episode)
            log.warning("sample %d (%r): %s", item.index, item.videos[0], record.error)
        finally:
            self.call_runner.tool.release(item.index)
        return _timed(record, started_at)

    async def _run(self, item: Item, episode: Episode, complete: Complete) -> None:
        annotated = video_path(item, self.video_root)
        asked_at = monotonic()
        found = await self.call_runner.tool.probe(annotated)
        episode.waits.frames_s += monotonic() - asked_at
        path, video = found.path, found.info
        if path != annotated:
            episode.video_file = str(path.relative_to(self.video_root))
        episode.video_duration_s = video.duration_s
        task = Task(item.index, item.prompt, video)
        look = partial(self.call_runner.run, path=path, video=video, sample=item.index)
        await open_episode(episode, self.agent, task, run_call=partial(look, budget=False))
        await run_episode(episode, self.agent, task, complete=complete, run_call=look, max_turns=self.max_turns)


def _timed(record: Record, started_at: float) -> Record:
    return replace(record, seconds=round(monotonic() - started_at, 3))
