"""The index of a video on disk: what reading all its packets found, so that they are read once.

It is believed only if it is whole (each array in an .npz file has a checksum), of this version and about this very
video. Otherwise the video is read again.
"""

from __future__ import annotations

import io
import zipfile
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eva.frames.store import video_folder, write_whole
from eva.video.container import EntryPoint, VideoFile
from eva.video.index import VideoIndex
from eva.video.sampling import Timeline

# Goes up when what an index says of the same video changes.
VERSION = 8


@dataclass(frozen=True)
class Indexes:
    """The indexes below a frame root."""

    root: Path

    def load(self, file: VideoFile, *, recount: bool, by_time: bool) -> VideoIndex | None:
        """See decode.IndexStore."""
        try:
            with np.load(self._path(file, recount=recount, by_time=by_time), allow_pickle=False) as stored:
                if stored["about"].tolist() != _about(file):
                    return None
                width, height, average_fps, shown_to_s = stored["numbers"].tolist()
                timeline = Timeline(
                    width=int(width),
                    height=int(height),
                    average_fps=average_fps,
                    times_s=array("d", stored["times_s"].tobytes()),
                    shown_to_s=None if np.isnan(shown_to_s) else shown_to_s,
                )
                entries = tuple(EntryPoint(*row) for row in stored["entries"].reshape(-1, 3).tolist())
                pts = array("q", stored["pts"].tobytes()) if "pts" in stored else None
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, EOFError, AttributeError, NotImplementedError, zipfile.BadZipFile):
            return None  # not whole, or something else
        return VideoIndex(timeline, pts, entries)

    def save(self, file: VideoFile, index: VideoIndex, *, recount: bool, by_time: bool) -> None:
        """See decode.IndexStore."""
        timeline = index.timeline
        shown_to_s = np.nan if timeline.shown_to_s is None else timeline.shown_to_s
        arrays = {
            "about": np.array(_about(file)),
            "numbers": np.array([timeline.width, timeline.height, timeline.average_fps, shown_to_s], np.float64),
            "times_s": np.array(timeline.times_s, np.float64),
            "entries": np.array([(entry.index, entry.pts, entry.seek_to) for entry in index.entries], np.int64),
        }
        if index.pts is not None:
            arrays["pts"] = np.array(index.pts, np.int64)
        data = io.BytesIO()
        np.savez(data, **arrays)  # type: ignore[arg-type]  # its stub takes them for `allow_pickle`
        place = self._path(file, recount=recount, by_time=by_time)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole([(place, data.getvalue())])

    def _path(self, file: VideoFile, *, recount: bool, by_time: bool) -> Path:
        name = f"{'counted' if recount else 'index'}{'-by-time' if by_time else ''}.npz"
        return video_folder(self.root, file) / name


def _about(file: VideoFile) -> list[str]:
    return [str(VERSION), video_folder(Path(), file).name, str(file.size), str(file.mtime_ns)]
