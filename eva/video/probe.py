"""The length and the size of a video, which the opening message says."""

from __future__ import annotations

import re
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from eva.errors import UndecodableError, VideoError
from eva.protocol.messages import VideoInfo
from eva.video.container import MATROSKA, VideoFile, open_stream

TAG = re.compile(r"([0-9]{1,6}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,20})?)")


def probe(path: Path) -> VideoInfo:
    """Read the header of the first video stream. Raises VideoError, which names the file."""
    with open_stream(path) as (container, stream):
        if not stream.width or not stream.height:
            raise VideoError(f"the video stream of {path} does not say its size")
        # ffprobe prints six decimals, and the reference takes the length from it: half a second is then cut off.
        return VideoInfo(round(_duration_s(container, stream, path), 6), stream.width, stream.height)


def _duration_s(container: InputContainer, stream: VideoStream, path: Path) -> float:
    # It says the length of a stream in a tag alone. To a stream that begins late, FFmpeg gives the length of the file.
    if container.format.name == MATROSKA:
        return _tagged_s(stream) or _shown_s(container, path)
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return _shown_s(container, path)


def _tagged_s(stream: VideoStream) -> float | None:
    """The length by the tag of a Matroska stream; None where no tag says it for certain."""
    tag = next((text for key, text in stream.metadata.items() if key.partition("-")[0] == "DURATION"), "")
    clock = TAG.fullmatch(tag)
    if clock is None or stream.duration is not None or stream.start_time is None or stream.time_base is None:
        return None
    begin_s = float(stream.start_time * stream.time_base)
    if begin_s and "_STATISTICS_TAGS" in stream.metadata:
        return None  # mkvmerge writes the length, and FFmpeg writes the end
    hours, minutes, seconds = clock.groups()
    length_s = 3600 * int(hours) + 60 * int(minutes) + float(seconds) - begin_s
    return length_s if length_s > 0 else None


def _shown_s(container: InputContainer, path: Path) -> float:
    """The time for which the frames are shown; the length of the container where none can be decoded."""
    from eva.video.index import read_index  # noqa: PLC0415 - few files need it

    try:
        return read_index(VideoFile.of(path), recount=False, by_time=False).timeline.length_s
    except UndecodableError:
        if container.duration:
            return container.duration / av.time_base  # another decoder may know it
        raise
