"""Videos that lost packets: each frame has one picture, whatever else is asked for, and that of a full decode."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from videos import Recipe, open_av, open_video, read_picture

import select_frame_fallback as tool
from eva.errors import VideoError
from eva.video.packets import packets_of

Encoded = Callable[[Recipe], Path]
Lost = Callable[[int], bool]

X264 = {"g": "20", "bf": "3", "preset": "veryfast"}
VPX = {"g": "20", "deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}
NUMBERED = [
    Recipe("h264.mp4", "libx264", options=X264),
    Recipe("h264-medium.mkv", "libx264", options={"preset": "medium", "g": "48"}),
    Recipe("h264-pyramid.mp4", "libx264", options={**X264, "bf": "8", "x264-params": "b-pyramid=normal:b-adapt=0"}),
    Recipe("h264-open.mp4", "libx264", options={**X264, "x264-params": "open-gop=1"}),
    Recipe("h264-422.mp4", "libx264", pix_fmt="yuv422p10le", options={"preset": "medium"}),
    Recipe("h264-scaled.mp4", "libx264", options={**X264, "x264-params": "cqm=jvt"}),
    Recipe("h264-interlaced.mp4", "libx264", options={**X264, "x264-params": "tff=1"}),
    Recipe("hevc.mp4", "libx265", options={"preset": "ultrafast", "x265-params": "keyint=20:bframes=3:log-level=none"}),
    Recipe("hevc-medium.mkv", "libx265", options={"x265-params": "keyint=40:bframes=4:open-gop=0:log-level=none"}),
    Recipe(
        "hevc-layers.mp4", "libx265", options={"x265-params": "keyint=20:bframes=3:temporal-layers=3:log-level=none"}
    ),
]
OTHERS = [
    Recipe("mpeg4.mp4", "mpeg4", options={"g": "20", "bf": "2", "q": "3"}),
    Recipe("vp8.webm", "libvpx", options=VPX),
    Recipe("vp9.webm", "libvpx-vp9", options=VPX),
    Recipe("av1.mp4", "libsvtav1", options={"g": "20", "preset": "11", "crf": "20"}),
]
LOSSES: dict[str, Lost] = {
    "every 7th": lambda place: place > 0 and place % 7 == 0,
    "every 5th": lambda place: place % 5 == 3,
    "one": lambda place: place == 31,
    "a keyframe": lambda place: place in {20, 41},
}


def without(source: Path, target: Path, lost: Lost) -> Path:
    """A copy of a video that lacks some packets, as `ffmpeg -bsf:v noise=drop=...` makes it."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copied = write.add_stream_from_template(stream, opaque=True)
        for place, packet in enumerate(packets_of(read, stream)):
            if not lost(place):
                packet.stream = copied
                write.mux(packet)
    return target


def full_decode(path: Path) -> dict[int, NDArray[np.uint8]]:
    """By presentation time: every frame up to the first that the decoder refuses, one after the other."""
    owed = {}
    with av.open(str(path)) as container, suppress(av.FFmpegError):
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            assert frame.pts is not None
            owed[frame.pts] = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return owed


def lossy(parameters: list[Recipe]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("recipe", "loss"),
        [pytest.param(recipe, loss, id=f"{recipe.name} without {loss}") for recipe in parameters for loss in LOSSES],
    )


def pictures(reply: dict[str, object]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    indices, frames = reply["indices"], reply["frames"]
    assert isinstance(indices, list)
    assert isinstance(frames, list)
    for index, frame in zip(indices, frames, strict=True):
        yield index, read_picture(frame)


@lossy([*NUMBERED, *OTHERS])
def test_each_frame_asked_for_alone_equals_the_full_decode(
    encoded: Encoded, tmp_path: Path, recipe: Recipe, loss: str
) -> None:
    path = without(encoded(recipe), tmp_path / recipe.name, LOSSES[loss])
    owed = list(full_decode(path).values())
    video = open_video(path, backend="av")
    given = 0
    for index in range(min(len(owed), video.timeline.count)):
        with suppress(VideoError):  # what cannot be decoded is an error, and no wrong picture
            ((_, rgb),) = video.frames([index], lambda rgb: rgb)
            assert np.array_equal(rgb, owed[index]), f"frame {index}"
            given += 1
    assert given > len(owed) / 2


@lossy(NUMBERED)
def test_every_frame_that_a_full_decode_gives_is_there_and_counted_so(
    encoded: Encoded, tmp_path: Path, recipe: Recipe, loss: str
) -> None:
    path = without(encoded(recipe), tmp_path / recipe.name, LOSSES[loss])
    owed = list(full_decode(path).values())
    video = open_video(path, backend="av")
    assert video.timeline.count == len(owed)
    got = dict(video.frames(range(len(owed)), lambda rgb: rgb))
    assert all(np.array_equal(got[index], rgb) for index, rgb in enumerate(owed))


@pytest.mark.parametrize("recipe", NUMBERED[:3], ids=lambda recipe: recipe.name)
def test_what_the_store_keeps_does_not_depend_on_what_came_first(
    encoded: Encoded, tmp_path: Path, recipe: Recipe
) -> None:
    path = without(encoded(recipe), tmp_path / recipe.name, LOSSES["every 7th"])
    owed = list(full_decode(path).values())
    words = [f"--video-path={path}", f"--save-root={tmp_path}", "--clamp"]
    for nframes in (1, 3, 2, 40):
        reply = tool.answer({"arguments": [*words, f"--nframes={nframes}"]})["ok"]
        for index, rgb in pictures(dict(reply)):
            assert np.array_equal(rgb, owed[index]), f"frame {index} of {nframes}"


@pytest.mark.parametrize("recipe", NUMBERED, ids=lambda recipe: recipe.name)
def test_a_whole_video_is_not_taken_for_one_that_lost_packets(encoded: Encoded, recipe: Recipe) -> None:
    assert not open_av(encoded(recipe)).gap


@pytest.mark.parametrize("recipe", NUMBERED, ids=lambda recipe: recipe.name)
def test_a_kept_index_remembers_the_loss(encoded: Encoded, tmp_path: Path, recipe: Recipe) -> None:
    path = without(encoded(recipe), tmp_path / recipe.name, LOSSES["every 7th"])
    words = [f"--video-path={path}", f"--save-root={tmp_path}", "--clamp", "--nframes=4"]
    first, second = (dict(tool.answer({"arguments": words})["ok"]) for _ in range(2))
    assert first["frames"] == second["frames"]
    assert "-av-gap/" in str(second["frames"])
    assert all(a <= b for a, b in pairwise(second["indices"]))


def with_flipped_bits(source: Path, target: Path, *, seed: int) -> Path:
    """A copy of a video with three flipped bits in every seventh packet, which decoders conceal."""
    chance = random.Random(seed)
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copied = write.add_stream_from_template(stream, opaque=True)
        for place, packet in enumerate(packets_of(read, stream)):
            data = bytearray(bytes(packet))
            for _ in range(3 if place and place % 7 == 0 and len(data) > 120 else 0):
                data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)
            flipped = av.Packet(bytes(data))
            flipped.pts, flipped.dts, flipped.time_base = packet.pts, packet.dts, packet.time_base
            flipped.is_keyframe, flipped.stream = packet.is_keyframe, copied
            write.mux(flipped)
    return target


@pytest.mark.parametrize("seed", range(4))
def test_a_frame_that_the_decoder_pieces_together_is_the_same_when_asked_for_alone(
    encoded: Encoded, tmp_path: Path, seed: int
) -> None:
    recipe = Recipe("one-keyframe.mp4", "libx264", options={**X264, "g": "250"})
    path = with_flipped_bits(encoded(recipe), tmp_path / recipe.name, seed=seed)
    owed = list(full_decode(path).values())
    video = open_av(path)
    for index in range(len(owed)):
        with suppress(VideoError):
            ((_, rgb),) = video.frames([index], lambda rgb: rgb)
            assert np.array_equal(rgb, owed[index]), f"frame {index}"
