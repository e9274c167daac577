"""The index of a video on disk: what reading all its packets found, so that they are read once.

The file has one JSON line, which names the video and what follows, and then the numbers as they lie in memory. It is
believed only if it is whole, of this version and about this very video. Otherwise the video is read again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eva.frames.store import video_folder, write_whole
from eva.json_text import parse_json
from eva.video.container import EntryPoint, VideoFile
from eva.video.index import VideoIndex
from eva.video.sampling import Timeline

# Goes up when what an index says of the same video changes.
VERSION = 7


@dataclass(frozen=True)
class Indexes:
    """The indexes below a frame root."""

    root: Path

    def load(self, file: VideoFile, *, recount: bool, by_time: bool) -> VideoIndex | None:
        """See decode.IndexStore."""
        try:
            data = self._path(file, recount=recount, by_time=by_time).read_bytes()
        except FileNotFoundError:
            return None
        return _parse(data, file)

    def save(self, file: VideoFile, index: VideoIndex, *, recount: bool, by_time: bool) -> None:
        """See decode.IndexStore."""
        place = self._path(file, recount=recount, by_time=by_time)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole([(place, _serialize(index, file))])

    def _path(self, file: VideoFile, *, recount: bool, by_time: bool) -> Path:
        name = f"{'counted' if recount else 'index'}{'-by-time' if by_time else ''}.bin"
        return video_folder(self.root, file) / name


def _serialize(index: VideoIndex, file: VideoFile) -> bytes:
    entries = [(entry.index, entry.pts, entry.seek_to) for entry in index.entries]
    times = np.array(index.timeline.times_s, np.float64)
    numbers = b"".join(
        part.tobytes() for part in (times, np.array(index.pts or (), np.int64), np.array(entries, np.int64))
    )
    header = {
        **_about(file),
        "width": index.timeline.width,
        "height": index.timeline.height,
        "average_fps": index.timeline.average_fps,
        "shown_to_s": index.timeline.shown_to_s,
        "frames": len(times),
        "entries": len(entries),
        "by_pts": index.pts is not None,
    }
    # Of header and numbers: a flipped bit in either would give other frames.
    digest = hashlib.sha256(json.dumps(header).encode() + numbers).hexdigest()
    return json.dumps({**header, "sha256": digest}).encode() + b"\n" + numbers


def _about(file: VideoFile) -> dict[str, Any]:
    return {
        "version": VERSION,
        "byteorder": sys.byteorder,
        "video": [str(file.path.absolute()), file.size, file.mtime_ns],
    }


def _parse(data: bytes, file: VideoFile) -> VideoIndex | None:
    line, _, numbers = data.partition(b"\n")
    try:
        header = parse_json(line)
    except ValueError:
        return None
    if not isinstance(header, dict):
        return None
    digest = header.pop("sha256", None)
    if digest != hashlib.sha256(json.dumps(header).encode() + numbers).hexdigest():
        return None
    if {key: header.get(key) for key in _about(file)} != _about(file):
        return None
    return _index(header, np.frombuffer(numbers, np.int64))


def _index(header: Mapping[str, Any], numbers: np.ndarray[Any, np.dtype[np.int64]]) -> VideoIndex:
    frames, by_pts = header["frames"], header["by_pts"]
    times, pts, entries = np.split(numbers, [frames, 2 * frames if by_pts else frames])
    timeline = Timeline(
        width=header["width"],
        height=header["height"],
        average_fps=header["average_fps"],
        times_s=array("d", times.tobytes()),
        shown_to_s=header["shown_to_s"],
    )
    points = tuple(EntryPoint(*row) for row in entries.reshape(-1, 3).tolist())
    return VideoIndex(timeline, array("q", pts.tobytes()) if by_pts else None, points)
