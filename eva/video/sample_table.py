"""The packets of a stream in MP4 or MOV, by the list of them that the file begins or ends with (`moov`).

A video of an hour on a network disk is thus not read before its first frame. Where a file is not plainly listed, its
packets must be read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva.video.container import MOV, OpenVideo, Source

Integers = NDArray[np.int64]

HIDING = {"vp8", "libvpx"}  # codecs of which a packet may show no frame
NO_TIME = -(2**63)
MAX_BOXES = 64
MAX_MOOV_BYTES, MAX_FILE_BYTES = 2**28, 2**62
# FFmpeg changes larger steps of time.
MAX_STEP = 2**28
COMPARED = 1000


@dataclass(frozen=True)
class Packets:
    """The packets that show a frame, in file order. A time may be NO_TIME."""

    pts: Integers
    dts: Integers
    keys: NDArray[np.bool_]  # which are marked as keyframes
    shown_to: int  # the end of the last frame, by its own duration


class _UnclearError(Exception):
    """The file is not plainly listed."""


def listed_packets(video: OpenVideo) -> Packets | None:
    """All packets of a stream that are listed. None where only reading them can tell. Raises ReadError."""
    if video.container.format.name != MOV or video.codec.name in HIDING:
        return None
    place = video.source.tell()
    try:
        return _packets(_find_tables(_read_moov(video.source), video.stream.id), video)
    except (_UnclearError, KeyError, struct.error):
        return None
    finally:
        video.source.seek(place)


def _packets(tables: dict[bytes, memoryview], video: OpenVideo) -> Packets:
    listed, count = video.stream.index_entries, len(video.stream.index_entries)
    steps = _spread(tables[b"stts"], count)
    if steps.min() < 1:  # FFmpeg changes these
        raise _UnclearError
    dts = np.cumsum(steps) - steps
    delays = _spread(tables[b"ctts"], count) if b"ctts" in tables else np.zeros_like(dts)
    pts = dts + delays + max(0, -int(delays.min()))
    keys = np.ones(count, np.bool_)
    if b"stss" in tables:
        keys = np.isin(np.arange(1, count + 1), _rows(tables[b"stss"], 1))
    # An edit list moves all times. FFmpeg drops or marks packets that it cuts off: they lie at the beginning and at the
    # end, and the frame shown first or last is among them. A file that is cut off ends before its last packet.
    shift = listed[0].timestamp - int(dts[0])
    spread = np.linspace(0, count - 1, min(count, COMPARED)).astype(np.int64).tolist()
    for place in (*spread, int(pts.argmin()), int(pts.argmax())):
        entry = listed[place]
        cut_off = entry.is_discard or entry.pos + entry.size > video.container.size
        if cut_off or entry.timestamp != dts[place] + shift:
            raise _UnclearError
    return Packets(pts + shift, dts + shift, keys, shown_to=int((pts + steps).max()) + shift)


def _read_moov(file: Source) -> memoryview:
    file.seek(0)
    for _ in range(MAX_BOXES):
        head = file.read(16)
        size, kind = struct.unpack_from(">I4s", head)
        if kind == b"moov" and 16 <= size <= MAX_MOOV_BYTES:
            return memoryview(head[8:] + file.read(size - 16))
        if size == 1:
            (size,) = struct.unpack_from(">Q", head, 8)
        if not 8 <= size < MAX_FILE_BYTES:
            break
        file.seek(size - len(head), os.SEEK_CUR)
    raise _UnclearError


def _find_tables(moov: memoryview, track: int) -> dict[bytes, memoryview]:
    """The tables of a track by their kind."""
    for kind, content in _boxes(moov):
        if kind == b"mvex":  # fragments follow, and list more packets
            break
        boxes = dict(_boxes(content)) if kind == b"trak" else {}
        at = 20 if boxes.get(b"tkhd", b"")[:1] == b"\1" else 12
        if int.from_bytes(boxes.get(b"tkhd", b"")[at : at + 4], "big") == track:
            for inner in (b"mdia", b"minf", b"stbl"):
                boxes = dict(_boxes(boxes[inner]))
            return boxes
    raise _UnclearError


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if not 8 <= size <= len(data) - at:
            raise _UnclearError
        yield kind, data[at + 8 : at + size]
        at += size


def _rows(data: memoryview, columns: int) -> NDArray[Any]:
    """The rows of a table: version and flags, the number of rows, and so many rows."""
    count = int.from_bytes(data[4:8], "big")
    if not count or len(data) != 8 + 4 * count * columns:
        raise _UnclearError
    return np.frombuffer(data, ">u4", offset=8).reshape(count, columns)


def _spread(data: memoryview, count: int) -> Integers:
    """Rows of (how often, step) as `count` steps."""
    often, steps = _rows(data, 2).view(">i4").T.astype(np.int64)
    if often.min() < 0 or often.sum() != count or np.abs(steps).max() > MAX_STEP:
        raise _UnclearError
    return np.repeat(steps, often)
