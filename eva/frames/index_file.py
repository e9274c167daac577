"""The index of a video on disk: what reading all its packets found, so that it is found once.

A file is one JSON line, which names the video and what follows, and then the numbers as they lie in memory. It is
believed only if it is whole, of this version and about this very video; anything else is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eva.frames.store import VideoFile, video_folder, write_whole
from eva.json_text import parse_json
from eva.video.container import Identity
from eva.video.packets import EntryPoint, VideoIndex
from eva.video.timeline import Timeline

# Raised when what an index says of the same video changes.
VERSION = 3


def stored_as(path: Path, identity: Identity) -> VideoFile:
    """The name in the store of the very file that has this identity, whatever lies at its path by now."""
    return VideoFile(str(path.absolute()), identity.size, identity.mtime_ns)


@dataclass(frozen=True)
class Indexes:
    """The indexes below a frame root."""

    root: Path

    def load(self, path: Path, identity: Identity, *, recount: bool) -> VideoIndex | None:
        """See decode.Indexes."""
        file = stored_as(path, identity)
        try:
            data = self._path(file, recount=recount).read_bytes()
        except FileNotFoundError:
            return None
        return _parsed(data, file)

    def save(self, path: Path, identity: Identity, index: VideoIndex, *, recount: bool) -> None:
        """See decode.Indexes."""
        file = stored_as(path, identity)
        place = self._path(file, recount=recount)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, _written(index, file))

    def _path(self, file: VideoFile, *, recount: bool) -> Path:
        return video_folder(self.root, file) / ("counted.bin" if recount else "index.bin")


def _written(index: VideoIndex, file: VideoFile) -> bytes:
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
        "missing": index.timeline.missing,
        "shown_to_s": index.timeline.shown_to_s,
        "frames": len(times),
        "entries": len(entries),
        "by_pts": index.pts is not None,
        "gap": index.gap,
    }
    # Over header and numbers: a flipped bit in either would be other frames.
    digest = hashlib.sha256(json.dumps(header).encode() + numbers).hexdigest()
    return json.dumps({**header, "sha256": digest}).encode() + b"\n" + numbers


def _about(file: VideoFile) -> dict[str, Any]:
    return {"version": VERSION, "byteorder": sys.byteorder, "video": asdict(file)}


def _parsed(data: bytes, file: VideoFile) -> VideoIndex | None:
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
        times_s=tuple(times.view(np.float64).tolist()),
        missing=header["missing"],
        shown_to_s=header["shown_to_s"],
    )
    rows = _entries(entries.reshape(-1, 3).tolist())
    return VideoIndex(timeline, tuple(pts.tolist()) if by_pts else None, rows, header["gap"])


def _entries(rows: Sequence[Sequence[int]]) -> tuple[EntryPoint, ...]:
    return tuple(EntryPoint(*row) for row in rows)
