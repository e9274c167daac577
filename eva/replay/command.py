"""`--replay`: a result file, its questions and its videos -> the summary. It writes nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from eva.agent.interface import MAX_TURNS
from eva.agent.transcript import load_transcriber
from eva.agents.choice import AGENT_SETTINGS, AgentChoice
from eva.dataset.items import Item
from eva.frames.probing import is_folder
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.stop_reasons import EXCEPTION
from eva.records.meta import differences, read_meta
from eva.records.result_file import read_records
from eva.records.schema import Record
from eva.replay.compare import MISSING_VIDEO, Divergence, compare, compare_exception, unexplained
from eva.replay.loop import Replayer
from eva.replay.summary import Summary
from eva.replay.videos import ShownVideo, infer_videos, open_videos
from eva.run.executor import make_tool
from eva.run.options import FRAME_TOOL, Options, SettingsError
from eva.run.settings import Dataset, choose_agent, find_problems, with_agent_settings

# The settings of a run that decide what the loop makes of a reply.
_DECIDING = ("max_turns", "max_visual_tokens", "maxp", "fallback", "timestamps")


async def replay_result(
    path: Path, items: Sequence[Item], dataset: Dataset, options: Options, *, cut_frames: bool
) -> Summary:
    """Play the records of `items` again, their frames too with `cut_frames`. Raises SettingsError, ResultError,
    TokenizerError, FrameToolUnusableError."""
    agent = choose_agent(options, items)
    options = with_agent_settings(options, agent)
    _check_flags(path, dataset, agent, options, cut_frames=cut_frames)
    settings = replace(options, image_transport="file")
    transcribe = load_transcriber(options.tokenizer)
    chosen = options if cut_frames else replace(options, frame_tool=FRAME_TOOL)
    tool = make_tool(chosen, dataset.video_root)
    asked = {item.index: item for item in items}
    try:
        if cut_frames:
            await tool.start()
        opened = await open_videos(items, dataset.video_root, tool) if is_folder(dataset.video_root) else {}
        inferred = {} if _needs_frames(options) else infer_videos(read_records(path), asked, opened, settings)
        replayer = Replayer(
            agent.make(), transcribe, settings, options.max_turns or MAX_TURNS, tool, dataset.video_root, cut_frames
        )
        stage = _Stage(replayer, asked, opened | inferred, part=options.sample is not None or options.ids is not None)
        summary = Summary(path)
        await stage.replay_all(
            tqdm(read_records(path), unit="record", disable=None), summary, at_once=options.max_concurrent
        )
    finally:
        await tool.close()
    return summary


def _check_flags(path: Path, dataset: Dataset, agent: AgentChoice, options: Options, *, cut_frames: bool) -> None:
    if cut_frames:
        for problem in find_problems(dataset, options):
            raise problem
    if _needs_frames(options) and not cut_frames:
        raise SettingsError("--timestamps actual and --no-fallback need the frames: add --replay-frames")
    meta = read_meta(path)
    if meta is None or not meta.settings:
        return
    names = {name for name in _DECIDING if name in meta.settings} | {"pixels_per_token"}
    now = {**{name: getattr(options, name) for name in names}, **agent.settings()}
    usual = {"pixels_per_token": PIXELS_PER_TOKEN_SIDE}
    then = {**usual, **{name: value for name, value in meta.settings.items() if name in names | AGENT_SETTINGS}}
    if lines := differences(then, now):
        raise SettingsError(f"{path} was made with other settings, give the same flags:\n  " + "\n  ".join(lines))


def _needs_frames(options: Options) -> bool:
    """Whether the frames themselves decide what the model is told."""
    return options.timestamps == "actual" or not options.fallback


@dataclass(frozen=True)
class _Stage:
    """`asked` holds the items by index. `part`: they are a choice, and records of other questions are passed over."""

    replayer: Replayer
    asked: Mapping[int, Item]
    videos: Mapping[str, ShownVideo]
    part: bool

    async def replay_all(self, records: Iterable[Record], summary: Summary, *, at_once: int) -> None:
        """Add the records to `summary`."""
        seen = set[int]()
        async for record, found in self._in_order(records, at_once):
            if record.index in seen:
                found.append(unexplained(record, None, "index", record.index, "there is a record of it already"))
            seen.add(record.index)
            self._add(record, found, summary)
        summary.unasked = len(self.asked.keys() - seen)

    def _add(self, record: Record, found: list[Divergence], summary: Summary) -> None:
        summary.divergences.extend(found)
        if _is_plain_exception(record):
            summary.exceptions += 1
            return
        summary.replayed += 1
        summary.identical += not found
        video = self._find_video(record)
        summary.without_video += video is None or video.path is None

    async def _in_order(
        self, records: Iterable[Record], at_once: int
    ) -> AsyncIterator[tuple[Record, list[Divergence]]]:
        """The records with what differs, `at_once` of them under way at a time."""
        waiting: deque[tuple[Record, asyncio.Task[list[Divergence]]]] = deque()
        for record in records:
            if self.part and record.index not in self.asked:
                continue
            waiting.append((record, asyncio.create_task(self._replay(record))))
            if len(waiting) >= at_once:
                first, task = waiting.popleft()
                yield first, await task
        for first, task in waiting:
            yield first, await task

    async def _replay(self, record: Record) -> list[Divergence]:
        item = self.asked.get(record.index)
        if item is None:
            return [unexplained(record, None, "index", record.index, "there is no such question")]
        video = self._find_video(record)
        if _is_plain_exception(record):
            return compare_exception(record, item, video)
        if video is None:
            return [replace(unexplained(record, None, "messages", record.messages[:80], None), cause=MISSING_VIDEO)]
        replayed = await self.replayer.replay(record, item, video)
        return compare(record, replayed, item, video, frames_cut=self.replayer.cuts(video))

    def _find_video(self, record: Record) -> ShownVideo | None:
        item = self.asked.get(record.index)
        return self.videos.get(item.videos[0]) if item else None


def _is_plain_exception(record: Record) -> bool:
    return record.stop_reason == EXCEPTION and not record.messages
