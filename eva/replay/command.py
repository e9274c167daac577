"""`--replay`: a result file, its questions and its videos -> the summary. It writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eva.agent.sample import SampleRunner
from eva.agent.transcript import load_transcriber
from eva.agents.choice import AGENT_SETTINGS, AgentChoice
from eva.dataset.items import Item, video_path
from eva.errors import VideoError
from eva.frames.tool import FoundVideo, FrameToolError, VideosLostError
from eva.frames.tools import is_folder
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.stop_reasons import EXCEPTION
from eva.records.meta import differences, read_meta
from eva.records.result_file import read_records
from eva.records.schema import Record
from eva.replay.compare import Divergence, compare, compare_exception
from eva.replay.loop import infer_video, replay
from eva.run.executor import make_sample_runner, make_tool
from eva.run.options import FRAME_TOOL, Options, SettingsError
from eva.run.settings import Dataset, choose_agent, find_problems, with_agent_settings
from eva.text import printable

# The settings of a run that decide what the loop makes of a reply.
_DECIDING = ("max_turns", "max_visual_tokens", "maxp", "fallback", "timestamps")
# Divergences that are printed; the JSON file has all.
MOST_LINES = 20


@dataclass
class Summary:
    """The counts of the replay of `path`.

    `exceptions` hold no conversation, and are not replayed. Records `without_video` have no video file here. `unasked`
    are the questions without a record.
    """

    path: Path
    replayed: int = 0
    identical: int = 0
    exceptions: int = 0
    without_video: int = 0
    unasked: int = 0
    divergences: list[Divergence] = field(default_factory=list)

    @property
    def proved(self) -> bool:
        """Whether there are records, and all are identical."""
        return self.replayed > 0 and not self.divergences

    def to_json(self) -> dict[str, Any]:
        return {
            "replayed": self.replayed,
            "identical": self.identical,
            "not_compared": {"exceptions": self.exceptions, "without_video": self.without_video},
            "questions_without_record": self.unasked,
            "divergences": [asdict(one) for one in self.divergences],
        }

    def lines(self) -> Iterator[str]:
        """The summary for a person."""
        yield f"Replay of {printable(str(self.path))}: {self.identical} of {self.replayed} identical"
        if self.unasked:
            yield f"Questions without a record: {self.unasked}"
        if self.exceptions:
            yield f"Not replayed: {self.exceptions} samples that ended as an exception; their records hold no replies"
        if self.without_video:
            yield f"Not compared: length and size of the video in {self.without_video} records whose video is not here"
        for one in self.divergences[:MOST_LINES]:
            place = "" if one.round is None else f", round {one.round}"
            recorded, replayed = (printable(repr(value)) for value in (one.recorded, one.replayed))
            yield f"  index {one.index}{place}, {one.field}: recorded {recorded}, replayed {replayed}"
        if len(self.divergences) > MOST_LINES:
            yield f"  and {len(self.divergences) - MOST_LINES} more (--json FILE has all)"


async def replay_result(
    path: Path, items: Sequence[Item], dataset: Dataset, options: Options, *, cut_frames: bool
) -> Summary:
    """Play the records of `items` again, their frames too with `cut_frames`. Raises SettingsError, ResultError,
    TokenizerError, FrameToolUnusableError."""
    agent = choose_agent(options, items)
    options = replace(with_agent_settings(options, agent), image_transport="file")
    _check_flags(path, dataset, agent, options, cut_frames=cut_frames)
    transcribe = load_transcriber(options.tokenizer)
    tool = make_tool(options if cut_frames else replace(options, frame_tool=FRAME_TOOL), dataset.video_root)
    runner = make_sample_runner(agent.make(), transcribe, tool, dataset.video_root, options=options)
    asked = {item.index: item for item in items}
    # Records of questions that were not chosen are passed over.
    part = options.sample is not None or options.ids is not None
    found = (record for record in read_records(path) if not part or record.index in asked)
    records = iter(tqdm(found, unit="record", disable=None))
    seen, summary = set[int](), Summary(path)
    try:
        if cut_frames:
            await tool.start()
        videos = is_folder(dataset.video_root)
        while batch := list(islice(records, options.max_concurrent)):
            plays = (
                _replay(one, asked.get(one.index), runner, summary, videos=videos, cut_frames=cut_frames)
                for one in batch
            )
            for record, differing in zip(batch, await asyncio.gather(*plays), strict=True):
                if record.index in seen:
                    differing.append(Divergence(record.index, None, "index", record.index, "is there twice"))
                seen.add(record.index)
                summary.divergences += differing
                summary.identical += not differing and not _is_exception(record)
    finally:
        await tool.close()
    summary.unasked = len(asked.keys() - seen)
    return summary


def _check_flags(path: Path, dataset: Dataset, agent: AgentChoice, options: Options, *, cut_frames: bool) -> None:
    if cut_frames:
        for problem in find_problems(dataset, options):
            raise problem
    elif options.timestamps == "actual" or not options.fallback:
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


async def _replay(
    record: Record, item: Item | None, runner: SampleRunner, summary: Summary, *, videos: bool, cut_frames: bool
) -> list[Divergence]:
    if _is_exception(record):
        summary.exceptions += 1
        return list(compare_exception(record, item)) if item else [_unknown(record)]
    summary.replayed += 1
    if item is None:
        return [_unknown(record)]
    found = None
    with suppress(VideoError, FrameToolError, VideosLostError):
        found = await runner.call_runner.tool.probe(video_path(item, runner.video_root)) if videos else None
    summary.without_video += found is None
    info = found.info if found else infer_video(record, item, runner.call_runner.settings)
    if info is None:
        return [Divergence(record.index, 0, "messages", "do not name the size of the video, which is not here", None)]
    shown, cuts = found or FoundVideo(Path(item.videos[0]), 0, 0, info), cut_frames and found is not None
    replayed = await replay(record, item, shown, runner, cut_frames=cuts)
    return list(compare(record, replayed, item, frames_cut=cuts))


def _is_exception(record: Record) -> bool:
    return record.stop_reason == EXCEPTION and not record.messages


def _unknown(record: Record) -> Divergence:
    return Divergence(record.index, None, "index", record.index, "there is no such question")
