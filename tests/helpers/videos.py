"""Makes small videos whose frames say which frame they are.

Every frame carries its number as twelve black or white blocks, coarse enough to survive lossy coding, over a
texture that moves from frame to frame, so that a frame decoded from the wrong references looks wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray
from priority import no_real_time

from eva.video import decode
from eva.video.container import VideoFile, open_stream
from eva.video.decode import AvVideo, DecordVideo, Video
from eva.video.index import read_index

BIT_ROWS, BIT_COLUMNS = 3, 4
SOUND_RATE = 48000


@dataclass(frozen=True)
class Recipe:
    """How one test video is encoded. `pts` are the frames' times in `time_base`; none: evenly at `rate`."""

    name: str  # file name, the suffix names the container
    codec: str
    count: int = 60
    rate: Fraction = Fraction(25)
    width: int = 160
    height: int = 120
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    time_base: Fraction | None = None
    pts: Sequence[int] | None = None
    container: str | None = None
    colorspace: int | None = None
    color_range: int | None = None
    first_pts: int = 0  # shifts all times; below 0 the MP4 muxer cuts frames off with an edit list
    rotation: int = 0  # degrees, as the container tells the player
    sound_s: float = 0  # of silence, from the container's beginning on
    sound_codec: str = "aac"
    tags: dict[str, str] = field(default_factory=dict)  # of the video stream


def picture(number: int, *, width: int, height: int) -> NDArray[np.uint8]:
    """The RGB picture (height, width, 3) of one frame number below 4096."""
    rows = np.arange(height) * BIT_ROWS // height
    columns = np.arange(width) * BIT_COLUMNS // width
    bits = (number >> (rows[:, None] * BIT_COLUMNS + columns[None, :])) & 1
    moved = np.roll(texture(width, height), (number % height, 2 * number % width), axis=(0, 1))
    return (30 + 150 * bits[:, :, None] + moved).astype(np.uint8)


def read_number(rgb: NDArray[np.uint8]) -> int:
    """The frame number that `picture` drew, read back from a decoded, possibly resized frame."""
    height, width = rgb.shape[:2]
    number = 0
    for bit in range(BIT_ROWS * BIT_COLUMNS):
        row, column = divmod(bit, BIT_COLUMNS)
        y = int((row + 0.5) * height / BIT_ROWS)
        x = int((column + 0.5) * width / BIT_COLUMNS)
        block = rgb[y - height // 12 : y + height // 12 + 1, x - width // 16 : x + width // 16 + 1]
        number |= int(block.mean() > 125) << bit
    return number


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """The RGB pixels (height, width, 3) of a picture file."""
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


@cache
def texture(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 40, (height, width, 3), dtype=np.uint8)


def encode(recipe: Recipe, folder: Path) -> Path:
    """Encode `recipe.count` numbered frames into `folder`; gives the file's path."""
    path = folder / recipe.name
    with (
        no_real_time(),
        av.open(str(path), "w", format=recipe.container, container_options=recipe.container_options) as container,
    ):
        stream = container.add_stream(recipe.codec, rate=recipe.rate, options=recipe.options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, recipe.pix_fmt
        stream.metadata.update(recipe.tags)
        time_base = recipe.time_base or 1 / recipe.rate
        stream.codec_context.time_base = time_base
        if recipe.rotation:
            stream.set_display_rotation(recipe.rotation)
        if recipe.colorspace is not None:
            stream.codec_context.colorspace = recipe.colorspace
        if recipe.color_range is not None:
            stream.codec_context.color_range = recipe.color_range
        packets = _silence(container, recipe)
        for number in range(recipe.count):
            pixels = picture(number, width=recipe.width, height=recipe.height)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = recipe.first_pts + (recipe.pts[number] if recipe.pts is not None else number)
            frame.time_base = time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        container.mux(sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base))
    return path


def _silence(container: OutputContainer, recipe: Recipe) -> list[av.Packet[Any]]:
    """The packets of the video's sound. Its stream is added to the container."""
    if not recipe.sound_s:
        return []
    stream = container.add_stream(recipe.sound_codec, rate=SOUND_RATE)
    assert isinstance(stream, av.AudioStream)
    stream.layout = "mono"
    silence = av.AudioFrame.from_ndarray(np.zeros((1, int(recipe.sound_s * SOUND_RATE)), np.int16), "s16", "mono")
    silence.sample_rate, silence.pts = SOUND_RATE, 0
    return [*stream.encode(silence), *stream.encode(None)]


def open_video(path: Path, *, backend: str = "auto", recount: bool = False) -> Video:
    return decode.open_video(path, backend=backend, recount=recount, indexes=None)


def open_av(path: Path) -> AvVideo:
    with open_stream(path) as video:
        return AvVideo(VideoFile.of(path), read_index(video, recount=False, by_time=False))


def open_decord(path: Path) -> DecordVideo:
    return DecordVideo(VideoFile.of(path))
