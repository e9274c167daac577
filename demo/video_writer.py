"""Writes the demo's videos: H.264 in MP4, through PyAV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from demo.scenes import Clip, paint

FPS = 5
Picture = NDArray[np.uint8]


def write_clip(path: Path, clip: Clip, *, seed: int) -> None:
    """Render `clip` at FPS frames per second. The same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    pictures = [paint(colour, width=clip.width, height=clip.height, rng=rng) for colour in clip.colours]
    ends_s = (*clip.starts_s[1:], clip.duration_s)
    counts = [(end_s - start_s) * FPS for start_s, end_s in zip(clip.starts_s, ends_s, strict=True)]
    write_pictures(path, zip(pictures, counts, strict=True), width=clip.width, height=clip.height)


def write_pictures(path: Path, pictures: Iterable[tuple[Picture, int]], *, width: int, height: int) -> None:
    """Encode each (height, width, 3) RGB picture for its number of frames, one after the other."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        index = 0
        for picture, count in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            for _ in range(count):
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                index += 1
        container.mux(stream.encode())
