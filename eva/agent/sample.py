"""One item from its video to its record. A failing sample never ends the run."""

from __future__ import annotations

import logging
import math
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from eva.agent.interface import Agent
from eva.agent.play import AgentFaultError, Complete, Episode, Sample
from eva.agent.record import episode_record, exception_record
from eva.agent.tool_call import CallRunner
from eva.agent.transcript import Transcribe
from eva.dataset.items import Item, video_path
from eva.endpoint.errors import ServersUnusableError, UnansweredError
from eva.frames.tool import FrameToolUnusableError
from eva.records.schema import Record

log = logging.getLogger(__name__)

# Failures that are not the sample's: the schedule decides what happens next.
_NOT_THE_SAMPLES = (FrameToolUnusableError, ServersUnusableError)


@dataclass(frozen=True)
class SampleRunner:
    """Runs samples. `timeout_s` is what an agent may take for one, the waiting for replies not counted.

    `sends_frames` is false where replies are recorded ones: then no server has looked at a picture.
    """

    agent: Agent
    call_runner: CallRunner
    transcribe: Transcribe
    video_root: Path
    max_turns: int
    timeout_s: float = math.inf
    sends_frames: bool = True
    _told: set[str] = field(default_factory=set)

    async def run(self, item: Item, complete: Complete) -> Record:
        """The item's record, also where the sample fails. Raises the failures of the servers and of the frame tool.

        An UnansweredError carries the record that the sample gets if it is given up."""
        episode, tool, began_at = Episode(), self.call_runner.tool, monotonic()
        try:
            annotated = video_path(item, self.video_root)
            found = await tool.probe(annotated)
            episode.frames_s += monotonic() - began_at
            if found.path != annotated:
                episode.video_file = str(found.path.relative_to(self.video_root))
            episode.video_duration_s = found.info.duration_s
            await Sample(item, found, episode, self, complete).play()
            record = episode_record(item, episode, self.transcribe)
        except UnansweredError as unanswered:
            record = exception_record(item, unanswered.failure, episode)
            unanswered.record = replace(record, seconds=round(monotonic() - began_at, 3))
            raise
        except _NOT_THE_SAMPLES:
            raise
        except Exception as error:  # a failing sample never ends the run: its record and a line say what happened
            record = exception_record(item, error, episode)
            log.warning("sample %d (%r): %s%s", item.index, item.videos[0], record.error, self._traceback(error))
        finally:
            tool.release(item.index)
        return replace(record, seconds=round(monotonic() - began_at, 3))

    def _traceback(self, error: Exception) -> str:
        """Of an error in an agent's code, once for each line of it."""
        cause = error.__cause__
        if not isinstance(error, AgentFaultError) or cause is None or str(error) in self._told:
            return ""
        self._told.add(str(error))
        return "\n" + "".join(traceback.format_exception(cause)).rstrip()
