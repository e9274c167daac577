"""One item from its video to its record. Whatever goes wrong with it stays its own trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eva.agent import Episode, play
from eva.items import Item, video_path
from eva.look import Looker
from eva.model import ChatModel
from eva.prompt import opening_messages
from eva.record import Record, episode_record, exception_record
from eva.transcript import Transcribe
from eva.video import VideoInfo


@dataclass(frozen=True)
class Sampler:
    """All that one sample needs; `report` is told of each sample that ends as an exception."""

    model: ChatModel
    looker: Looker
    probe: Callable[[Path], VideoInfo]
    transcribe: Transcribe
    video_root: Path
    max_turns: int
    report: Callable[[str], None]

    async def run(self, item: Item) -> Record:
        """The item's record, whatever happens to it."""
        episode = Episode(messages=[])
        try:
            await self._play(item, episode)
            return episode_record(item, episode, self.transcribe(episode.messages))
        except Exception as error:
            self.report(f"sample {item.index} ({item.videos[0]!r}): {type(error).__name__}: {error}")
            return exception_record(item, error, episode.rounds)

    async def _play(self, item: Item, episode: Episode) -> None:
        path = video_path(item, self.video_root)
        video = await asyncio.to_thread(self.probe, path)
        opening = opening_messages(item.prompt, video)
        episode.messages.extend(opening.messages)
        await play(
            episode,
            opening.question,
            complete=self.model.complete,
            look_at=lambda call: self.looker.look(call, path, video),
            max_turns=self.max_turns,
        )
