"""Opening a video: its timeline first, then the pixels of chosen frames.

A frame is named by its index in presentation order, and has the pixels that decoding the file from its start gives.
PyAV (FFmpeg) is the default decoder; decord, the one the published numbers were measured with, is optional.

While decoding, the time of each frame is compared with the index. So a file whose packets do not map one to one to
frames (hidden frames, a start that cannot be decoded) is noticed, and no frame is shifted by one.
"""

from __future__ import annotations

import queue
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from eva.errors import MiscountedError, ReadError, UndecodableError, VideoError
from eva.video import LIKE_DECORD, LIKE_TORCHCODEC
from eva.video.container import EntryPoint, OpenVideo, Source, VideoFile, open_stream, threads_at_most
from eva.video.index import VideoIndex, quarter_turns, read_index, upright
from eva.video.picture import Rgb, encode, resize
from eva.video.sampling import Plan, Timeline

# Each decoder opens the file, and FFmpeg holds 75 bytes for each frame that an MP4 lists.
MAX_LISTED = 1_000_000
# How many pictures wait at most. One of a 4K video has 25 MB.
AHEAD = 8
READ_AT_ONCE = 2**20
# decord raises these besides its own DECORDError; an empty video fails an assertion.
DECORD_ERRORS = (RuntimeError, IndexError, AssertionError, UnicodeError)

Made = TypeVar("Made")
Item = TypeVar("Item")
# A keyframe to start at (None: the file's start), and the indices to decode from it, in ascending order.
Pass = tuple[EntryPoint | None, list[int]]


class IndexStore(Protocol):
    """Keeps the indexes of videos; `recount` and `by_time` as in index.read_index. Raises OSError."""

    def load(self, file: VideoFile, *, recount: bool, by_time: bool) -> VideoIndex | None: ...
    def save(self, file: VideoFile, index: VideoIndex, *, recount: bool, by_time: bool) -> None: ...


class AvVideo:
    """A video decoded by PyAV. The file is closed between calls."""

    decoder = "av"

    def __init__(self, file: VideoFile, index: VideoIndex) -> None:
        self.file, self.index = file, index
        self.timeline, self._pts = index.timeline, index.pts

    def frames(self, indices: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of its RGB) once for each distinct index, in any order.

        `make` is called from any thread, for several frames at the same time.
        Raises VideoError for a frame that cannot be decoded; MiscountedError where the timeline proves wrong.
        """
        wanted, done = sorted(set(indices)), set[int]()
        if self._pts is not None:
            try:
                for index, made in self._decode_sparsely(wanted, make):
                    yield index, made
                    done.add(index)
                return
            except ReadError:
                raise
            except VideoError:
                # Decoding everything shows whether the file is damaged. What the decoder fills in depends on all that
                # it decoded before, and on its threads.
                pass
        rest = [index for index in wanted if index not in done]
        yield from self._decode([(None, rest)], make, sparsely=False, threads=None if self._pts is None else 1)

    def _decode_sparsely(self, wanted: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """Leaves out frames that these do not need, and decodes independent passes at the same time."""
        groups = [(entry, list(targets)) for entry, targets in groupby(wanted, self.entry_for)]
        count = min(len(groups), threads_at_most(), MAX_LISTED // len(self.timeline.times_s))
        if count < 2:
            return self._decode(groups, make, sparsely=True, threads=None)
        # Decoders with one thread each need less CPU than one decoder with several.
        return at_once(
            [partial(self._decode, groups[first::count], make, sparsely=True, threads=1) for first in range(count)]
        )

    def entry_for(self, index: int) -> EntryPoint | None:
        """The keyframe from which a frame is decoded; None: the file's start."""
        place = bisect_right(self.index.entries, index, key=lambda entry: entry.index) - 1
        return self.index.entries[place] if place > 0 else None

    def _decode(
        self, groups: Sequence[Pass], make: Callable[[Rgb], Made], *, sparsely: bool, threads: int | None
    ) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of it) for the targets of each pass."""
        reformatter = VideoReformatter()
        with open_stream(self.file.path, threads=threads, strict=sparsely) as video:
            for entry, targets in groups:
                pts = {self._pts[target] for target in targets} if sparsely and self._pts is not None else None
                frames = video.frames(entry, pts)
                for index, frame in self._choose(frames, targets, video, first=entry.index if entry else 0):
                    yield index, make(to_rgb(frame, self.timeline, reformatter))

    def _choose(
        self, frames: Iterable[VideoFrame], targets: Sequence[int], video: OpenVideo, *, first: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        """The frames with the indices `targets`, which ascend, among the frames from `first` on. Raises VideoError for
        one that is not there; MiscountedError where other frames are there than the index says."""
        waiting, expected = list(reversed(targets)), first
        miscounted = MiscountedError(f"the packets of {self.file.path} do not map one to one to its frames")
        for frame in frames:
            index, sound = expected if self._pts is None else self._index_of(frame.pts), video.is_sound(frame)
            if first and index is not None and index < first:
                continue  # shown before the keyframe at which this pass starts, though it may follow it in the file
            if first and expected == first and not (index == first and frame.key_frame):
                raise VideoError("decoding cannot begin here")  # at the beginning of an intra refresh, for example
            left_out = video.leaves_out and index is not None and expected < index <= waiting[-1]
            if not video.damaged and index != expected and not left_out:
                raise miscounted
            if index is None or index < expected:
                continue
            expected = index + 1
            if index > waiting[-1] or (index == waiting[-1] and not sound):
                break
            if index == waiting[-1]:
                yield waiting.pop(), frame
                if not waiting:
                    return
        if not video.damaged and self._pts is not None:
            raise miscounted
        when = f"frame {waiting[-1]} at {self.timeline.times_s[waiting[-1]]:.3f} s of {self.file.path}"
        raise VideoError(f"{when} cannot be decoded: the file is damaged; fetch it again")

    def _index_of(self, pts: int | None) -> int | None:
        if self._pts is None or pts is None:
            return None
        index = bisect_left(self._pts, pts)
        return index if index < len(self._pts) and self._pts[index] == pts else None


class DecordVideo:
    """A video decoded by the reference's own decoder, decord 0.6.0: its frames, wrong ones included.

    It is optional: it has wheels for Linux on x86-64 only, and it cannot open AV1.
    """

    decoder = "decord"

    def __init__(self, file: VideoFile) -> None:
        self.file = file
        try:
            import decord  # noqa: PLC0415 - optional, and half a second to import
        except ImportError as error:
            raise VideoError("decord is not installed; `pip install decord==0.6.0`, or use --backend av") from error
        decord.logging.set_level(decord.logging.QUIET)
        # It takes an error of the disk for the end of the file, or for damage. So the whole file is read first, which
        # raises ReadError. Then decord reads what the system holds in memory.
        with Source(file.path) as source:
            while source.read(READ_AT_ONCE):
                pass
        self._errors = (*DECORD_ERRORS, decord._ffi.base.DECORDError)
        try:
            reader = self._reader = decord.VideoReader(str(file.path.absolute()), ctx=decord.cpu(0))
            height, width = reader[0].shape[:2]
            reader.seek(0)
            times_s = reader.get_frame_timestamp(range(len(reader)))[:, 0].tolist()
            self.timeline = Timeline(width, height, reader.get_avg_fps(), tuple(times_s))
        except self._errors as error:
            raise UndecodableError(f"decord cannot open {file.path}: {_first_line(error)}") from error

    def frames(self, indices: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """See AvVideo. All in one batch, as the reference does: which wrong frames decord gives depends on what it
        decoded before."""
        wanted = sorted(set(indices))
        try:
            batch = self._reader.get_batch(wanted).asnumpy()
        except self._errors as error:
            raise VideoError(f"decord cannot decode the frames of {self.file.path}: {_first_line(error)}") from error
        for index, rgb in zip(wanted, batch, strict=True):
            yield index, make(rgb)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


Video: TypeAlias = AvVideo | DecordVideo


def open_video(path: Path, *, backend: str, recount: bool, indexes: IndexStore | None) -> Video:
    """Open `path` with "av", "decord", or "auto": av, and decord where av cannot decode the file.

    "torchcodec" is av, and the frames of every file are chosen by time. "like-decord" is "auto", but a file whose
    frames are chosen by time, because decord cannot use it, is refused.

    `recount` decodes the whole file to learn its frames, for files whose packets mislead (MiscountedError). The index
    that av needs is taken from `indexes`, or kept there.
    Raises VideoError, whose message names the file.
    """
    file, by_time = VideoFile.of(path), backend == LIKE_TORCHCODEC
    if backend == "decord":
        return DecordVideo(file)
    index = indexes.load(file, recount=recount, by_time=by_time) if indexes else None
    if index is None:
        try:
            with open_stream(path, threads=1) as video:
                index = read_index(video, recount=recount, by_time=by_time)
        except UndecodableError as undecodable:
            if backend in ("av", LIKE_TORCHCODEC):
                raise
            try:
                return DecordVideo(file)
            except ReadError:
                raise
            except VideoError:
                raise undecodable from None  # the reason of the default decoder is the clearer one
        file.check_unchanged()
        if indexes:
            indexes.save(file, index, recount=recount, by_time=by_time)
    if backend == LIKE_DECORD and index.timeline.shown_to_s is not None:
        raise VideoError(f"decord cannot use {path}: its frames can only be chosen by time")
    return AvVideo(file, index)


def describe(video: Video, plan: Plan) -> dict[str, Any]:
    """What was executed, as frames.json says it."""
    return {
        "video": str(video.file.path),
        "decoder": video.decoder,
        "start_s": plan.window.start_s,
        "end_s": plan.window.end_s,
        "indices": plan.indices,
        "times_s": [video.timeline.times_s[index] for index in plan.indices],
        "width": plan.width,
        "height": plan.height,
        "average_fps": video.timeline.average_fps,
    }


def pictures(video: Video, indices: Sequence[int], plan: Plan, picture_format: str) -> Iterator[tuple[int, bytes]]:
    """(index, picture file) for each distinct index, one by one: memory does not grow with their number. Raises
    VideoError; ReadError, at the latest after the last one, where the file was changed or replaced."""
    try:
        yield from video.frames(indices, lambda rgb: encode(resize(rgb, plan.width, plan.height), picture_format))
    except VideoError:
        video.file.check_unchanged()
        raise
    video.file.check_unchanged()


def to_rgb(frame: VideoFrame, timeline: Timeline, reformatter: VideoReformatter) -> Rgb:
    """8-bit RGB (height x width x 3) as FFmpeg's swscale gives it by default, in the size of the video.

    As in decord, a frame of another size is scaled: FFmpeg does not cut off a few columns on the left, because rows
    must begin at aligned addresses. And frames are turned as the container says the video is shown, except where they
    are chosen by time: the second decoder of the reference does not turn.
    """
    turns = quarter_turns(frame) if timeline.shown_to_s is None else 0
    width, height = upright((timeline.width, timeline.height), turns)
    converted = reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
    rgb = converted.to_ndarray().astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def at_once(starts: Sequence[Callable[[], Iterator[Item]]]) -> Iterator[Item]:
    """The items of generators that run at the same time, each on its own thread, as they come. Raises the error of a
    generator. When this ends, no generator runs any more."""
    stop = threading.Event()
    items: queue.Queue[Item | BaseException] = queue.Queue(AHEAD)

    def produce(start: Callable[[], Iterator[Item]]) -> None:
        try:
            for item in start():
                items.put(item)
                if stop.is_set():
                    return
            items.put(StopIteration())
        except BaseException as error:  # raised below
            items.put(error)

    threads = [threading.Thread(target=produce, args=(start,), daemon=True) for start in starts]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            item = items.get()
            if isinstance(item, StopIteration):
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):
            with suppress(queue.Empty):  # a thread that waits for room continues, and sees `stop`
                items.get(timeout=0.01)
