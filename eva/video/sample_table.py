"""The packets of an H.264 stream in MP4, by the table in which the file lists them.

FFmpeg takes two microseconds to read a packet, and a video of five hours has a million. This module reads the table at
once, and of each packet only the numbers by which gaps.py finds missing packets. It gives what reading the packets
would give, or nothing: where the file is not plainly listed, the packets must be read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from eva.video.container import Identity, open_file, read_error
from eva.video.gaps import HEADER_BYTES, WINDOW_BYTES, Bytes, H264Numbers, Integers, numbers_of
from eva.video.packets import H264_IDR, H264_SLICES, Notes, begins_anew, is_whole, length_size

MAX_BOXES = 64  # in a box
# What a table may consist of. FFmpeg reads times from others, too.
TABLES = {b"stsd", b"stts", b"ctts", b"stss", b"stsz", b"stsc", b"stco", b"co64", b"sgpd", b"sbgp", b"sdtp"}
# The packets are in one place: the file itself.
DATA_PLACES = bytes.fromhex("0000001c 64726566 00000000 00000001 0000000c 75726c20 00000001")
# FFmpeg changes larger steps of time, and negative ones, which look like larger ones.
MAX_STEP = 2**28
COMPARED = 1000
# So much is read at once.
AT_ONCE_BYTES, AT_ONCE = 2**22, 8192
MAX_UNITS = 32  # before the first slice of a packet

BigEndian = NDArray[Any]


class _UnclearError(Exception):
    """The file is not plainly listed."""


@dataclass(frozen=True)
class _Box:
    """A part of the file: its kind, and where its content begins and ends."""

    kind: bytes
    begin: int
    end: int


@dataclass(frozen=True)
class _Table:
    """Of each packet its times, its place in the file, and its size in bytes."""

    pts: Integers
    dts: Integers
    pos: Integers
    size: NDArray[np.uint32]


def listed_notes(path: Path, identity: Identity, container: InputContainer, stream: VideoStream) -> Notes | None:
    """The notes of all packets of a stream that misses none of them. None where only the packets can tell. Raises
    ReadError; ChangedError where the file does not have this identity."""
    context, numbers = stream.codec_context, numbers_of(stream.codec_context)
    if not container.format.name.startswith("mov,") or not isinstance(numbers, H264Numbers):
        return None
    try:
        with open_file(path, identity) as file:
            table = _read_table(file.fileno(), stream.id)
            _move_to_times_of_ffmpeg(table, stream)
            entries = _entries(file.fileno(), table, stream, numbers)
    except _UnclearError:  # FFmpeg reads such a file as far as it can be read
        return None
    except OSError as error:
        raise read_error(path, error) from error
    # FFmpeg drops the decoding times of packets that it believes to be mistimed.
    mistimed = context.has_b_frames and bool(np.any(table.pts[entries] == table.dts[entries]))
    # No caller asks when the last frame of such a stream ends: its frames are chosen by the average rate.
    return None if numbers.gap or mistimed else Notes(table.pts, table.dts, entries, shown_to=0)


# --- what the file says


def _read_table(file: int, track: int) -> _Table:
    moov = list(_boxes(file, _moov(file)))
    traks = [box for box in moov if box.kind == b"trak" and _track_number(file, box) == track]
    if len(traks) != 1 or any(box.kind == b"mvex" for box in moov):  # which announces fragments
        raise _UnclearError
    _check_edits(file, traks[0])
    minf = _child(file, traks[0], b"mdia", b"minf")
    if _read(file, _child(file, minf, b"dinf")) != DATA_PLACES:
        raise _UnclearError
    return _make_table(file, _child(file, minf, b"stbl"))


def _make_table(file: int, stbl: _Box) -> _Table:
    kinds = {box.kind for box in _boxes(file, stbl)}
    stsd, stsz = (_child(file, stbl, kind) for kind in (b"stsd", b"stsz"))
    description = _read(file, stsd, at_most=16)
    one_kind = (description[4:8], description[12:]) == (b"\0\0\0\1", b"avc1")
    if not kinds <= TABLES or not one_kind or _read(file, stsz, at_most=8)[4:] != b"\0\0\0\0":  # all of one size
        raise _UnclearError
    size = _rows(file, _Box(b"", stsz.begin + 4, stsz.end), 1).ravel().astype(np.uint32)
    pos = _positions(file, stbl, size)
    delays = _spread(_rows(file, _child(file, stbl, b"ctts"), 2), len(size)) if b"ctts" in kinds else 0
    steps = _spread(_rows(file, _child(file, stbl, b"stts"), 2), len(size))
    if steps.min() < 1 or size.min() < 1:
        raise _UnclearError
    dts = np.cumsum(steps, dtype=np.int64)
    dts -= steps
    return _Table(dts + delays, dts, pos, size)


def _positions(file: int, stbl: _Box, size: NDArray[np.uint32]) -> Integers:
    """Chunks have places, and packets lie in chunks one after the other."""
    kind, item = (b"co64", ">u8") if any(box.kind == b"co64" for box in _boxes(file, stbl)) else (b"stco", ">u4")
    offsets = _rows(file, _child(file, stbl, kind), 1, item).ravel().astype(np.int64)
    first, per_chunk, description = _rows(file, _child(file, stbl, b"stsc"), 3).astype(np.int64).T
    lengths = np.diff(first, append=len(offsets) + 1)
    if not len(first) or first[0] != 1 or lengths.min() < 1 or np.any(description != 1):
        raise _UnclearError
    counts = np.repeat(per_chunk, lengths)
    if counts.min() < 1 or counts.sum() != len(size):
        raise _UnclearError
    pos = np.cumsum(size, dtype=np.int64)
    pos -= size
    pos += np.repeat(offsets - pos[np.cumsum(counts) - counts], counts)
    end = os.fstat(file).st_size
    if pos.min() < 0 or pos.max() > end or pos[-1] + size[-1] > end or np.any(pos[1:] - pos[:-1] < size[:-1]):
        raise _UnclearError
    return pos


def _check_edits(file: int, trak: _Box) -> None:
    """An edit list may hold one edit at normal speed, and an empty one before it. What they cut off is seen in FFmpeg's
    own list."""
    if not any(box.kind == b"edts" for box in _boxes(file, trak)):
        return
    elst = _read(file, _child(file, trak, b"edts", b"elst"), at_most=64)
    form = struct.Struct(">qqi" if elst[:1] == b"\1" else ">iii")
    if len(elst) not in {8 + form.size, 8 + 2 * form.size}:
        raise _UnclearError
    edits = list(form.iter_unpack(elst[8:]))
    if any(rate != 1 << 16 for _, _, rate in edits) or any(begin != -1 for _, begin, _ in edits[:-1]):
        raise _UnclearError


def _moov(file: int) -> _Box:
    boxes = list(_boxes(file, _Box(b"", 0, os.fstat(file).st_size)))
    found = [box for box in boxes if box.kind == b"moov"]
    if len(found) != 1 or any(box.kind == b"moof" for box in boxes):
        raise _UnclearError
    return found[0]


def _child(file: int, box: _Box, *path: bytes) -> _Box:
    for kind in path:
        found = [child for child in _boxes(file, box) if child.kind == kind]
        if len(found) != 1:
            raise _UnclearError
        box = found[0]
    return box


def _boxes(file: int, box: _Box) -> Iterator[_Box]:
    """The boxes in a box."""
    at = box.begin
    for _ in range(MAX_BOXES):
        if at == box.end:
            return
        head = os.pread(file, 16, at)
        if len(head) < 8:
            raise _UnclearError
        (size, kind), header = struct.unpack_from(">I4s", head), 8
        if size == 1 and len(head) == 16:
            size, header = struct.unpack_from(">Q", head, 8)[0], 16
        if not header <= size <= box.end - at:
            raise _UnclearError
        yield _Box(kind, at + header, at + size)
        at += size
    raise _UnclearError


def _read(file: int, box: _Box, *, at_most: int = 1024) -> bytes:
    return os.pread(file, min(box.end - box.begin, at_most), box.begin)


def _track_number(file: int, trak: _Box) -> int:
    tkhd = _read(file, _child(file, trak, b"tkhd"))
    at = 20 if tkhd[:1] == b"\1" else 12
    return int.from_bytes(tkhd[at : at + 4], "big")


def _rows(file: int, box: _Box, columns: int, item: str = ">u4") -> BigEndian:
    """The rows of a table: version and flags, the number of rows, and so many rows."""
    data = _read(file, box, at_most=box.end - box.begin)
    count = int.from_bytes(data[4:8], "big")
    if not count or len(data) != 8 + count * columns * np.dtype(item).itemsize:
        raise _UnclearError
    return np.frombuffer(data, item, offset=8).reshape(count, columns)


def _spread(rows: BigEndian, count: int) -> NDArray[np.int32]:
    """Rows of (how often, step) as `count` steps."""
    if rows[:, 0].sum(dtype=np.int64) != count or rows[:, 1].max() > MAX_STEP:
        raise _UnclearError
    return np.repeat(rows[:, 1].astype(np.int32), rows[:, 0].astype(np.int64))


# --- what FFmpeg makes of it


def _move_to_times_of_ffmpeg(table: _Table, stream: VideoStream) -> None:
    """An edit list moves all times. FFmpeg drops or marks packets that it cuts off. Those lie at the beginning and at
    the end, and the frame shown first or last is among them."""
    listed, count = stream.index_entries, len(table.pts)
    if len(listed) != count:
        raise _UnclearError
    shift = listed[0].timestamp - int(table.dts[0])
    spread = np.linspace(0, count - 1, min(count, COMPARED)).astype(np.int64).tolist()
    for place in (*spread, int(table.pts.argmin()), int(table.pts.argmax())):
        entry = listed[place]
        owed = (table.dts[place] + shift, table.pos[place], table.size[place])
        if entry.is_discard or (entry.timestamp, entry.pos, entry.size) != owed:
            raise _UnclearError
    table.pts[:] += shift
    table.dts[:] += shift


# --- what the packets say


def _entries(file: int, table: _Table, stream: VideoStream, numbers: H264Numbers) -> NDArray[np.bool_]:
    """At which packets decoding may begin. `numbers` takes all packets into account."""
    entries, begin = np.zeros(len(table.pos), np.bool_), 0
    while begin < len(entries):
        base = table.pos[begin]
        end = min(int(np.searchsorted(table.pos, base + AT_ONCE_BYTES)), begin + AT_ONCE)
        begins = table.pos[begin:end] - base
        ends = begins + table.size[begin:end]
        data = np.empty(ends[-1] + WINDOW_BYTES, np.uint8)
        if os.preadv(file, [data[: ends[-1]].data], int(base)) != ends[-1]:
            raise _UnclearError
        for place in _note_all(data, begins, ends, length_size(stream.codec_context), numbers):
            packet = data[begins[place] : ends[place]].data
            if not is_whole(packet, stream.codec_context):  # FFmpeg may not see a keyframe in it
                raise _UnclearError
            entries[begin + place] = begins_anew(packet, stream.codec_context)
        begin = end
    return entries


def _note_all(data: Bytes, begins: Integers, ends: Integers, size: int, numbers: H264Numbers) -> list[int]:
    """Take the packets in `data` into account; gives those whose first slice begins anew."""
    slices = _first_slices(data, begins, ends, size)
    found = np.flatnonzero(slices)
    starts, stops = slices[found], ends[found]

    def unit_at(place: int) -> bytes:
        return data[starts[place] : min(starts[place] + HEADER_BYTES, stops[place])].tobytes()

    numbers.note_all(data[starts[:, None] + np.arange(WINDOW_BYTES)], stops - starts, unit_at)
    anew: list[int] = found[np.isin(data[starts] & 0x1F, list(H264_IDR))].tolist()
    return anew


def _first_slices(data: Bytes, begins: Integers, ends: Integers, size: int) -> Integers:
    """Where in `data` the first slice of each packet begins, after its length; 0 for a packet without slices."""
    slices, places, units = np.zeros_like(begins), np.arange(len(begins)), begins + size
    for _ in range(MAX_UNITS):
        inside = units < ends[places]
        places, units = places[inside], units[inside]
        found = np.isin(data[units] & 0x1F, list(H264_SLICES))
        slices[places[found]] = units[found]
        places, units = places[~found], units[~found]
        if not len(places):
            return slices
        units = units + size + sum(data[units - 1 - byte].astype(np.int64) << 8 * byte for byte in range(size))
    raise _UnclearError
