"""One video per codec, container and peculiarity, for every test that decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from videos import Recipe

Encoded = Callable[[Recipe], Path]

X264 = {"g": "20", "bf": "3", "preset": "veryfast"}
X265 = "keyint=20:bframes=3:log-level=none"
VPX = {"g": "20", "deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}
AV1 = {"g": "20", "preset": "11", "crf": "20"}
MPEG4 = {"g": "20", "bf": "2", "q": "3"}
UNEVEN = [sum((40, 80, 120, 33)[k % 4] for k in range(n)) for n in range(60)]


def h264(name: str, **more: object) -> Recipe:
    return Recipe(name, "libx264", **{"options": X264, **more})  # type: ignore[arg-type]


def hevc(name: str, params: str = "", **more: object) -> Recipe:
    options = {"preset": "ultrafast", "x265-params": X265 + params}
    return Recipe(name, "libx265", options=options, **more)  # type: ignore[arg-type]


# Decoding may begin at later keyframes than the first: H.264 where they are IDR pictures, in MP4 and Matroska.
ENTERED = [
    h264("h264.mp4"),
    h264("h264.mkv"),
    h264("h264-faststart.mov", container_options={"movflags": "faststart"}),
    h264("h264-fragmented.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
    h264("h264-varying-rate.mp4", time_base=Fraction(1, 1000), pts=UNEVEN),
    h264("h264-varying-rate.mkv", time_base=Fraction(1, 1000), pts=UNEVEN),
    h264("h264-start-offset.mp4", first_pts=50),
    h264("h264-start-offset.mkv", first_pts=50),
    h264("h264-10bit.mp4", pix_fmt="yuv420p10le"),
    h264("h264-422.mp4", pix_fmt="yuv422p"),
    h264("h264-444-odd.mp4", pix_fmt="yuv444p", width=161, height=121),
    h264("h264-full-range.mp4", pix_fmt="yuvj420p"),
    h264("h264-bt709.mp4", colorspace=1, color_range=1),
    h264("h264-1fps.mp4", rate=Fraction(1)),
    h264("h264-60000-1001.mp4", rate=Fraction(60000, 1001)),
    h264("h264-portrait.mp4", width=120, height=160),
    h264("h264-pyramid.mp4", options={**X264, "bf": "8", "x264-params": "b-pyramid=normal:b-adapt=0"}),
    h264("h264-slices.mp4", options={**X264, "x264-params": "slices=3"}),
    h264("h264-interlaced.mp4", options={**X264, "x264-params": "tff=1"}),
    h264("h264-no-b-frames.mp4", options={**X264, "bf": "0"}),
    h264("h264-edit-list.mp4", count=80, first_pts=-13, container_options={"avoid_negative_ts": "disabled"}),
    hevc("hevc.mp4", ":open-gop=0"),
    hevc("hevc-open.mp4", ":open-gop=1"),
    hevc("hevc-10bit.mkv", pix_fmt="yuv420p10le"),
    hevc("hevc-layers.mp4", ":open-gop=0:temporal-layers=3"),
    Recipe("vp8.webm", "libvpx", options=VPX),
    Recipe("vp9.webm", "libvpx-vp9", options=VPX),
    Recipe("vp9.mp4", "libvpx-vp9", options=VPX),
    Recipe("vp9-odd.mkv", "libvpx-vp9", width=161, height=121, options=VPX),
    Recipe("av1.mp4", "libsvtav1", options=AV1),
    Recipe("av1.webm", "libsvtav1", options=AV1),
    Recipe("av1-10bit.mkv", "libsvtav1", pix_fmt="yuv420p10le", options=AV1),
]
FROM_THE_START = [
    h264("h264-one-frame.mp4", count=1),
    h264("h264-open.mp4", options={**X264, "x264-params": "open-gop=1"}),
    h264("h264.ts"),
    h264("h264.flv"),
    h264("h264.avi"),
    hevc("hevc.ts"),
    Recipe("mpeg4.mp4", "mpeg4", options=MPEG4),
    Recipe("mpeg4.avi", "mpeg4", options=MPEG4),
    Recipe("mpeg4.mkv", "mpeg4", options=MPEG4),
    Recipe("mpeg2.ts", "mpeg2video", options=MPEG4),
    Recipe("mpeg2.mpg", "mpeg2video", options=MPEG4),
    Recipe("sorenson.flv", "flv", options={"g": "20"}),
    Recipe("mjpeg.avi", "mjpeg", pix_fmt="yuvj420p"),
    Recipe("ffv1.mkv", "ffv1"),
]
CORPUS = [*ENTERED, *FROM_THE_START]
# decord opens no AV1, seeks wrongly in MPEG-TS and in open GOPs (those of MPEG-4, too), knows no times in AVI and MPEG
# program streams, serves what edit lists cut off, and converts 10-bit, interlaced and odd 4:2:0 pictures with an older
# swscale.
DECORD_IS_WRONG = ("interlaced", "av1", ".ts", ".avi", ".mpg", "open", "mpeg4", "edit-list", "10bit", "vp9-odd")
DECORD_IS_RIGHT = [recipe for recipe in CORPUS if not any(word in recipe.name for word in DECORD_IS_WRONG)]


def named(recipes: Iterable[Recipe]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recipe", [pytest.param(recipe, id=recipe.name) for recipe in recipes])


def full_decode(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame, decoded one after the other from the start of the file."""
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]
