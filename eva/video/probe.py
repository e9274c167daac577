"""What the opening message says of a video: its length and its size."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from eva.errors import VideoError
from eva.protocol.messages import VideoInfo
from eva.video.container import moving_pictures, open_container
from eva.video.timeline import Timeline


def probe(path: Path) -> VideoInfo:
    """Read the header of the first video stream. Raises VideoError, which names the file."""
    if not path.is_file():
        raise VideoError(f"the video {path} does not exist or is not a file")
    with open_container(path) as container:
        stream = moving_pictures(container, path)[0]
        if not stream.width or not stream.height:
            raise VideoError(f"the video stream of {path} does not say its size")
        return VideoInfo(_duration_s(container, stream, path), stream.width, stream.height)


def _duration_s(container: InputContainer, stream: VideoStream, path: Path) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    # webm, mkv and flv keep the duration in the container alone; the reference crashed on them.
    if container.duration is not None:
        return container.duration / av.time_base
    timeline = _timeline(path)
    return timeline.end_s - timeline.begin_s


def _timeline(path: Path) -> Timeline:
    """When the frames of a streamed file are shown, which says nowhere how long it is."""
    from eva.video.decode_pyav import AvVideo  # noqa: PLC0415 - it takes OpenCV along, and such files are rare

    return AvVideo(path).timeline
