"""Tool calls by the default decoder and by decord, live: the same frames wherever decord is right."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from corpus import DECORD_IS_RIGHT, Encoded, h264, named
from videos import Recipe, open_av, open_decord

from eva.protocol.arguments import FrameRequest
from eva.video.decode import Video
from eva.video.picture import Rgb, resize
from eva.video.sampling import Plan, make_plan

# The last times of these are no 32-bit floats, and the low rates make them large.
RATES = (Fraction(1, 7), Fraction(3, 10), Fraction(25, 2), Fraction(15), Fraction(24000, 1001), Fraction(30000, 1001))
KINDS = [
    *(recipe for recipe in DECORD_IS_RIGHT if not recipe.name.startswith("vp9")),  # which is chosen by time
    *(h264(f"rate-{rate.numerator}-{rate.denominator}.mp4", rate=rate, count=150) for rate in RATES),
    h264("late-start.mp4", rate=Fraction(30000, 1001), first_pts=41),
    h264("turned.mp4", rotation=90),
    h264("narrow.mp4", width=32, height=18),
    Recipe("mpeg4-no-b.mp4", "mpeg4"),
    Recipe("mpeg4-no-b.avi", "mpeg4"),
    Recipe("mpeg4-no-b.mkv", "mpeg4"),
    Recipe("mjpeg.mov", "mjpeg", pix_fmt="yuvj420p"),
    Recipe("raw.avi", "rawvideo"),
    Recipe("h263.mov", "h263", width=176, height=144),
]


@named(KINDS)
def test_calls_give_the_frames_of_decord(encoded: Encoded, recipe: Recipe) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    path = encoded(recipe)
    ours, decords = open_av(path), open_decord(path)
    for request in requests(decords.timeline.end_s, random.Random(recipe.name)):
        plans = [make_plan(video.timeline, request, factor=28, clamp=True) for video in (ours, decords)]
        assert plans[0] == plans[1], request
    for nframes, ratio, factor in ((64, 1.0, 1), (5, 0.5, 28)):
        plan = make_plan(decords.timeline, FrameRequest(0, 1e9, nframes, ratio), factor=factor, clamp=True)
        for ours_rgb, decords_rgb in zip(shown(ours, plan), shown(decords, plan), strict=True):
            assert np.array_equal(ours_rgb, decords_rgb)


def requests(end_s: float, chance: random.Random) -> Iterator[FrameRequest]:
    """Windows at both ends, the whole, and any, for every number of frames that a model asks for."""
    cut_s = chance.uniform(0, end_s)
    for start_s, stop_s in ((0, 1e9), (0, cut_s), (cut_s, 1e9), (cut_s / 2, cut_s), (end_s + 1, end_s + 2), (-2, 0)):
        for nframes in range(1, 65):
            yield FrameRequest(start_s, stop_s, nframes, 0.5)


def shown(video: Video, plan: Plan) -> list[Rgb]:
    """The pictures of a plan, one per entry."""
    pictures = dict(video.frames(plan.indices, lambda rgb: resize(rgb.copy(), plan.width, plan.height)))
    return [pictures[index] for index in plan.indices]
