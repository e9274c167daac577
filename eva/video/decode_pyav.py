"""Exact frames by PyAV (FFmpeg).

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
from typing import TypeVar

from av.video.frame import VideoFrame

from eva.errors import MiscountedError, ReadError, VideoError
from eva.video.container import VideoFile, open_stream
from eva.video.decoding import Decoding, RgbConverter, threads_at_most
from eva.video.index import VideoIndex
from eva.video.packets import EntryPoint
from eva.video.picture import Rgb

# Each decoder opens the file, and FFmpeg holds 75 bytes for each frame that an MP4 lists.
MAX_LISTED = 1_000_000
# How many pictures wait at most. One of a 4K video has 25 MB.
AHEAD = 8

Made = TypeVar("Made")
Item = TypeVar("Item")
# A keyframe to start at (None: the file's start), and the indices to decode from it, in ascending order.
Pass = tuple[EntryPoint | None, list[int]]


class AvVideo:
    """A video decoded by PyAV. The file is closed between calls."""

    decoder = "av"

    def __init__(self, file: VideoFile, index: VideoIndex) -> None:
        self.file, self.index = file, index
        self.timeline, self._pts = index.timeline, index.pts

    def frames(self, indices: Sequence[int], make: Callable[[Rgb], Made]) -> Iterator[tuple[int, Made]]:
        """(index, what `make` makes of its RGB) once for each distinct index; see decode.Video."""
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
        to_rgb = RgbConverter(self.timeline)
        with open_stream(self.file.path) as (container, stream):
            decoding = Decoding(container, stream, threads=threads, strict=sparsely)
            for entry, targets in groups:
                pts = {self._pts[target] for target in targets} if self._pts is not None else set()
                frames = decoding.frames(entry, pts if sparsely else None)
                for index, frame in self._choose(frames, targets, decoding, first=entry.index if entry else 0):
                    yield index, make(to_rgb(frame))

    def _choose(
        self, frames: Iterable[VideoFrame], targets: Sequence[int], decoding: Decoding, *, first: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        """The frames with the indices `targets`, which ascend, among the frames from `first` on. Raises VideoError for
        one that is not there; MiscountedError where other frames are there than the index says."""
        waiting, expected = list(reversed(targets)), first
        for frame in frames:
            index, sound = expected if self._pts is None else self._index_of(frame.pts), decoding.is_sound(frame)
            if first and index is not None and index < first:
                continue  # shown before the keyframe at which this pass starts, though it may follow it in the file
            if first and expected == first and not (index == first and frame.key_frame):
                raise VideoError("decoding cannot begin here")  # at the beginning of an intra refresh, for example
            left_out = decoding.leaves_out and index is not None and expected < index <= waiting[-1]
            if not decoding.damaged and index != expected and not left_out:
                raise self._miscounted_error()
            if index is None or index < expected:
                continue
            expected = index + 1
            if index > waiting[-1] or (index == waiting[-1] and not sound):
                break
            if index == waiting[-1]:
                yield waiting.pop(), frame
                if not waiting:
                    return
        if not decoding.damaged and self._pts is not None:
            raise self._miscounted_error()
        when = f"frame {waiting[-1]} at {self.timeline.times_s[waiting[-1]]:.3f} s of {self.file.path}"
        raise VideoError(f"{when} cannot be decoded: the file is damaged; fetch it again")

    def _index_of(self, pts: int | None) -> int | None:
        if self._pts is None or pts is None:
            return None
        index = bisect_left(self._pts, pts)
        return index if index < len(self._pts) and self._pts[index] == pts else None

    def _miscounted_error(self) -> MiscountedError:
        return MiscountedError(f"the packets of {self.file.path} do not map one to one to its frames")


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
