"""The length and the size of a video, which the opening message says."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from eva.errors import VideoError
from eva.protocol.messages import VideoInfo
from eva.video.container import Identity, moving_pictures, open_container


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
        # As ffprobe prints it, from which the reference takes it. Half a second is then cut off.
        return round(float(stream.duration * stream.time_base), 6)
    # In webm, mkv and flv only the container has a duration; the reference crashed on them.
    if container.duration is not None:
        return container.duration / av.time_base
    # A streamed file says nowhere how long it is.
    from eva.video.decode_pyav import read_index  # noqa: PLC0415 - it takes OpenCV along, and such files are rare

    timeline = read_index(path, Identity.of(path), recount=False).timeline
    return timeline.end_s - timeline.begin_s
