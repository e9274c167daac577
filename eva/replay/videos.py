"""The length and the size of the video that each record showed: of its file, or else as the records name them.

A transcript names the length and the shorter side. The longer side decides how the budget cuts the calls, and so the
counts of frames and tokens. Of a video without a file, it is the one that explains these counts in most of its records.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eva.agent.tool_call import CallSettings
from eva.dataset.items import Item, video_path
from eva.errors import VideoError
from eva.frames.tool import FrameTool, FrameToolError, VideosLostError
from eva.protocol.arguments import FrameRequest, UnusableArgumentError, read_request
from eva.protocol.budget import Budgeted, fit_budget
from eva.protocol.messages import VideoInfo
from eva.protocol.reply import Calls, parse_reply
from eva.records.read_transcript import find_resolution, find_video_length_s
from eva.records.schema import Record, transcript
from eva.replay.turns import recorded_replies

# The usual ratios of the longer side to the shorter one are tried first.
RATIOS = (16 / 9, 4 / 3, 1, 3 / 2, 2, 64 / 27)
MOST_RATIO = 8
MAX_SIDE = 16384
FRAME_MARK = "<|vision_start|>"


@dataclass(frozen=True)
class ShownVideo:
    """`path` is None where there is no file, and `info` is what the records say."""

    info: VideoInfo
    path: Path | None = None


async def open_videos(items: Iterable[Item], video_root: Path, tool: FrameTool) -> dict[str, ShownVideo]:
    """The videos that have a file that opens, by their names in the annotations."""

    async def open_one(item: Item) -> ShownVideo | None:
        try:
            found = await tool.probe(video_path(item, video_root))
        except (VideoError, FrameToolError, VideosLostError):
            return None
        return ShownVideo(found.info, found.path)

    named = {item.videos[0]: item for item in items}
    opened = await asyncio.gather(*map(open_one, named.values()))
    return {name: video for name, video in zip(named, opened, strict=True) if video is not None}


def infer_videos(
    records: Iterable[Record], items: Mapping[int, Item], opened: Mapping[str, ShownVideo], settings: CallSettings
) -> dict[str, ShownVideo]:
    """The videos without a file that at least one transcript describes, by their names in the annotations."""
    described: defaultdict[str, _Described] = defaultdict(_Described)
    for record in records:
        item = items.get(record.index)
        if item is not None and item.videos[0] not in opened:
            described[item.videos[0]].add(record, item)
    inferred = ((name, one.infer(settings)) for name, one in described.items())
    return {name: ShownVideo(info) for name, info in inferred if info is not None}


@dataclass(frozen=True)
class _Counts:
    """The calls of a record, and how many tokens and frames they came to."""

    requests: Sequence[FrameRequest]
    tokens: int | float | None
    frames: int

    def score(self, longer: int, shorter: int, settings: CallSettings) -> int:
        """How many of the two counts a video of this size explains."""
        fitted = list(self._fit(longer, shorter, settings))
        tokens, frames = sum(one.tokens for one in fitted), sum(int(one.nframes) for one in fitted)
        return (tokens == self.tokens) + (frames == self.frames)

    def _fit(self, longer: int, shorter: int, settings: CallSettings) -> Iterator[Budgeted]:
        budget = {"max_visual_tokens": settings.max_visual_tokens, "maxp": settings.maxp}
        side = settings.pixels_per_token
        for request in self.requests:
            try:
                yield fit_budget(request.nframes, request.resize, width=longer, height=shorter, side=side, **budget)
            except (OverflowError, ValueError):
                continue


@dataclass
class _Described:
    """What the records of one video say of it."""

    openings: Counter[tuple[float, int]] = field(default_factory=Counter)
    counts: list[_Counts] = field(default_factory=list)

    def add(self, record: Record, item: Item) -> None:
        messages = transcript(record.messages)
        length_s, shorter = find_video_length_s(messages), find_resolution(messages)
        if length_s is None or shorter is None:
            return
        self.openings[length_s, shorter] += 1
        requests = tuple(_requests(record, item))
        self.counts.append(_Counts(requests, record.estimated_visual_tokens, messages.count(FRAME_MARK)))

    def infer(self, settings: CallSettings) -> VideoInfo | None:
        """The length and shorter side that most records name, with the longer side that explains the most counts."""
        if not self.openings:
            return None
        (length_s, shorter), _ = self.openings.most_common(1)[0]
        best, best_score = shorter, -1
        for longer in _longer_sides(shorter):
            score = sum(one.score(longer, shorter, settings) for one in self.counts)
            if score > best_score:
                best, best_score = longer, score
            if score == 2 * len(self.counts):
                break
        # The opening names half a second less than the stream's length, cut to whole seconds.
        return VideoInfo(length_s + 0.5, best, shorter)


def _longer_sides(shorter: int) -> Iterator[int]:
    for ratio in RATIOS:
        yield round(shorter * ratio)
    yield from range(shorter, min(shorter * MOST_RATIO, MAX_SIDE) + 1)


def _requests(record: Record, item: Item) -> Iterator[FrameRequest]:
    """The calls of a record that have a budget."""
    for reply in recorded_replies(record, item):
        action = parse_reply(reply.text)
        for call in action.calls if isinstance(action, Calls) else ():
            if call.arguments is not None and call.error is None:
                try:
                    yield read_request(call.arguments)
                except UnusableArgumentError:
                    continue
