"""One item from its video to its record. Whatever goes wrong with it stays its own trouble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from eva.agent.loop import Complete, Episode, play
from eva.agent.record import episode_record, exception_record
from eva.agent.tool_call import Looker
from eva.agent.transcript import Transcribe
from eva.dataset.items import Item, video_path
from eva.endpoint.errors import OutageError, UnansweredError
from eva.frames.tool import FrameToolUnusableError
from eva.protocol.messages import opening_messages
from eva.records.schema import Record

# What is not the sample's trouble: the scheduler decides what becomes of it.
_NOT_THE_SAMPLES = (FrameToolUnusableError, OutageError)


@dataclass(frozen=True)
class Sampler:
    """All that one sample needs; `report` is told of each sample that ends as an exception."""

    looker: Looker
    transcribe: Transcribe
    video_root: Path
    max_turns: int
    report: Callable[[str], None]

    async def run(self, item: Item, complete: Complete) -> Record:
        """The item's record, its own failure included. Raises what is the servers' or the frame tool's failure; an
        UnansweredError brings the record with it that the sample has if it is given up."""
        episode = Episode()
        started = monotonic()
        try:
            await self._play(item, episode, complete)
            record = episode_record(item, episode, self.transcribe(episode.messages))
        except UnansweredError as unanswered:
            unanswered.record = _timed(exception_record(item, unanswered.failure, episode), started)
            raise
        except _NOT_THE_SAMPLES:
            raise
        except Exception as error:  # one bad sample never ends a run; its record and a line say what happened
            self.report(f"sample {item.index} ({item.videos[0]!r}): {type(error).__name__}: {error}")
            record = exception_record(item, error, episode)
        finally:
            self.looker.tool.release(item.index)
        return _timed(record, started)

    async def _play(self, item: Item, episode: Episode, complete: Complete) -> None:
        annotated = video_path(item, self.video_root)
        found = await self.looker.tool.probe(annotated)
        path, video = found.path, found.info
        if path != annotated:
            episode.video_file = str(path.relative_to(self.video_root))
        episode.video_duration_s = video.duration_s
        opening = opening_messages(item.prompt, video)
        episode.messages.extend(opening.messages)
        await play(
            episode,
            opening.question,
            complete=complete,
            look_at=lambda call: self.looker.look(call, path, video, sample=item.index),
            max_turns=self.max_turns,
        )


def _timed(record: Record, started_at: float) -> Record:
    return replace(record, seconds=round(monotonic() - started_at, 3))
