"""What decord cannot open is chosen by time, as the reference's second decoder does it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from corpus import AV1, UNEVEN, VPX, X264, Encoded, named
from videos import Recipe, open_decord, open_video, read_number, read_picture

import select_frame_fallback as tool
from eva.errors import VideoError
from eva.video.sampling import SelectionError

# Alternate reference frames are hidden: decord fails on them.
VPX_HIDING = {"g": "60", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "25", "b": "100k"}
NTSC = Fraction(30000, 1001)
STREAMED = {"live": "1"}


def vp9(name: str, **more: Any) -> Recipe:
    return Recipe(f"vp9-{name}", "libvpx-vp9", **{"options": VPX, **more})


def av1(name: str, **more: Any) -> Recipe:
    return Recipe(f"av1-{name}", "libsvtav1", **{"options": AV1, **more})


# (recipe, then for windows (start, end, frames) the numbers of the frames that torchcodec 0.12.0 shows)
Window = tuple[float, float, int]
RECORDED: list[tuple[Recipe, dict[Window, list[int]]]] = [
    (av1("recorded.mp4", rate=NTSC), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 51, 59],
        (1.01, 1.49, 5): [30, 33, 37, 41, 44],
        (0.3, 2.9, 1): [34],
    }),
    (av1("recorded-offset.webm", rate=NTSC, first_pts=41), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 51, 59],
        (1.01, 1.49, 5): [0, 0, 1, 2, 3],
        (0.3, 2.9, 1): [22],
    }),
    (vp9("recorded.webm", rate=Fraction(24000, 1001)), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 51, 59],
        (1.01, 1.49, 5): [24, 27, 29, 32, 35],
        (0.3, 2.9, 1): [33],
    }),
    (vp9("recorded-offset.mp4", rate=Fraction(60), first_pts=37), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 51, 59],
        (1.01, 1.49, 5): [23, 30, 38, 45, 52],
        (0.3, 2.9, 1): [30],
    }),
    (vp9("recorded-uneven.mkv", time_base=Fraction(1, 1000), pts=UNEVEN), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 50, 59],
        (1.01, 1.49, 5): [14, 16, 18, 20, 22],
        (0.3, 2.9, 1): [22],
    }),
    (Recipe("recorded-streamed.mkv", "libx264", options=X264, container_options=STREAMED), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 51, 59],
        (1.01, 1.49, 5): [25, 28, 31, 34, 37],
        (0.3, 2.9, 1): [33],
    }),
    # No frame of these two has a time: torchcodec shows a frame when it comes out of the decoder, 2 frames late, but
    # keyframes (every 20 frames) at once.
    (Recipe("recorded-undated.avi", "libx264", options=X264), {
        (0, 1e9, 8): [0, 6, 15, 23, 32, 40, 49, 57],
        (1.01, 1.49, 5): [23, 26, 29, 32, 35],
        (0.7, 0.95, 4): [15, 17, 20, 21],
    }),
    (Recipe("recorded-undated-in-order.avi", "libx264", options={**X264, "bf": "0"}), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 51, 59],
        (1.01, 1.49, 5): [25, 28, 31, 34, 37],
        (0.7, 0.95, 4): [17, 19, 21, 23],
    }),
]  # fmt: skip
# decord opens these, so they are chosen by time only by `--backend torchcodec`.
FORCED: list[tuple[Recipe, dict[Window, list[int]]]] = [
    (Recipe("forced-offset.mkv", "libx264", options=X264, rate=NTSC, first_pts=37), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 51, 59],
        (1.01, 1.49, 5): [0, 1, 3, 5, 7],
        (0.3, 2.9, 1): [24],
    }),
    (Recipe("forced-uneven.mkv", "libx264", options=X264, time_base=Fraction(1, 1000), pts=UNEVEN), {
        (0, 1e9, 8): [0, 8, 17, 25, 34, 42, 50, 59],
        (1.01, 1.49, 5): [14, 16, 18, 20, 22],
        (0.3, 2.9, 1): [22],
    }),
]  # fmt: skip
CODED = [
    *(vp9(f"25fps.{suffix}") for suffix in ("mp4", "webm", "mkv")),
    *(av1(f"25fps.{suffix}") for suffix in ("mp4", "webm", "mkv")),
    av1("turned.mp4", rotation=90),
]
UNMEASURED = [
    Recipe("streamed-h264.mkv", "libx264", options=X264, container_options=STREAMED),
    Recipe("streamed-vp8.webm", "libvpx", options=VPX, container_options=STREAMED),
    Recipe("pictures.apng", "apng", pix_fmt="rgb24"),
    Recipe("pictures.gif", "gif", pix_fmt="rgb8"),
    Recipe("vp8.ivf", "libvpx", options=VPX),
    # Like Theora in Ogg, these say no average rate.
    Recipe("vp8.ogg", "libvpx", options=VPX),
    Recipe("mpeg4.wmv", "mpeg4"),
    Recipe("narrow-16.mp4", "libx264", options=X264, width=16, height=16),
    Recipe("narrow-16-when-turned.mp4", "libx264", options=X264, width=160, height=16, rotation=90),
]
BY_TIME = [*CODED, *UNMEASURED]
BY_RATE = [
    Recipe("h264.mp4", "libx264", options=X264),
    Recipe("h264.mkv", "libx264", options=X264),
    Recipe("h264.flv", "libx264", options=X264),
    Recipe("h264.ts", "libx264", options=X264),
    Recipe("h264-fragmented.mp4", "libx264", container_options={"movflags": "frag_keyframe+empty_moov"}),
    Recipe("hevc.mkv", "libx265", options={"preset": "ultrafast", "x265-params": "log-level=none"}),
    Recipe("vp8.webm", "libvpx", options=VPX),
    Recipe("mpeg4.avi", "mpeg4"),
    Recipe("mpeg2.mpg", "mpeg2video"),
    Recipe("mpeg1.ts", "mpeg1video"),
    Recipe("sorenson.flv", "flv"),
    Recipe("h263.mov", "h263", width=176, height=144),
    Recipe("wmv2.wmv", "wmv2"),
    Recipe("prores.mov", "prores_ks", pix_fmt="yuv422p10le"),
    Recipe("dnxhd.mov", "dnxhd", pix_fmt="yuv422p", width=256, height=128, options={"profile": "dnxhr_sq"}),
    Recipe("mjpeg.mov", "mjpeg", pix_fmt="yuvj420p"),
    Recipe("ffv1.mkv", "ffv1"),
    Recipe("animation.mov", "qtrle", pix_fmt="rgb24"),
    Recipe("raw.avi", "rawvideo"),
]


def decord_opens(path: Path) -> bool:
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    try:
        video = open_decord(path)
        list(video.frames([0, len(video.timeline.times_s) // 2, len(video.timeline.times_s) - 1], lambda rgb: rgb))
    except VideoError:
        return False
    return True


def is_chosen_by_time(path: Path) -> bool:
    return open_video(path, backend="av").timeline.shown_to_s is not None


@named([recipe for recipe in BY_TIME if not recipe.name.startswith("vp9")])
def test_a_video_that_decord_cannot_open_is_chosen_by_time(encoded: Encoded, recipe: Recipe) -> None:
    assert is_chosen_by_time(encoded(recipe))
    assert not decord_opens(encoded(recipe))


@named(BY_RATE)
def test_a_video_that_decord_opens_is_chosen_by_its_average_rate(encoded: Encoded, recipe: Recipe) -> None:
    assert not is_chosen_by_time(encoded(recipe))
    assert decord_opens(encoded(recipe))


def test_decord_fails_on_vp9_with_hidden_frames_and_all_vp9_is_chosen_by_time(encoded: Encoded) -> None:
    hiding, plain = (vp9("hiding.webm", count=150, options=VPX_HIDING), vp9("25fps.webm"))
    assert [is_chosen_by_time(encoded(recipe)) for recipe in (hiding, plain)] == [True, True]
    assert [decord_opens(encoded(recipe)) for recipe in (hiding, plain)] == [False, True]


def test_decord_fails_on_the_rows_of_some_narrow_pictures(encoded: Encoded) -> None:
    widths = (2, 6, 8, 10, 12, 14, 16, 18, 24, 28, 32, 40, 48, 64, 72, 80, 96, 144)
    paths = [encoded(Recipe(f"width-{width}.mp4", "libx264", count=2, width=width, height=32)) for width in widths]
    by_time = {width for width, path in zip(widths, paths, strict=True) if is_chosen_by_time(path)}
    assert by_time == {2, 6, 8, 12, 16, 24, 48, 72}
    assert by_time == {width for width, path in zip(widths, paths, strict=True) if not decord_opens(path)}


def test_mpeg1_in_a_transport_stream_has_the_rate_of_its_frames_not_of_its_fields(encoded: Encoded) -> None:
    timeline = open_video(encoded(Recipe("mpeg1.ts", "mpeg1video")), backend="av").timeline
    assert timeline.average_fps == pytest.approx(25, rel=1e-6)


def test_decord_knows_no_times_of_h264_in_avi(encoded: Encoded) -> None:
    path = encoded(RECORDED[-1][0])
    timeline = open_video(path).timeline
    assert (timeline.begin_s, timeline.end_s, timeline.times_s[1]) == (0, 2.4, 0.04)
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    decords = open_decord(path).timeline
    assert decords.begin_s == decords.end_s < -1e17


def test_a_video_that_is_chosen_by_time_is_not_turned(encoded: Encoded) -> None:
    plain = Recipe("forced-turned.mp4", "libx264", options=X264, rotation=90)
    for recipe, backend in ((av1("turned.mp4", rotation=90), "auto"), (plain, "torchcodec")):
        video = open_video(encoded(recipe), backend=backend)
        assert (video.timeline.width, video.timeline.height) == (160, 120)
        (_, rgb), *_ = video.frames([5], lambda rgb: rgb)
        assert read_number(rgb) == 5
    assert open_video(encoded(plain)).timeline.width == 120


@named([vp9("25fps.webm"), UNMEASURED[0]])
def test_as_decord_a_video_that_is_chosen_by_time_is_refused(encoded: Encoded, recipe: Recipe) -> None:
    with pytest.raises(VideoError, match=f"decord .*{recipe.name}"):
        open_video(encoded(recipe), backend="like-decord")


def test_as_decord_other_videos_are_those_of_pyav(encoded: Encoded) -> None:
    path = encoded(BY_RATE[0])
    assert open_video(path, backend="like-decord").decoder == "av"
    assert open_video(path, backend="like-decord").timeline == open_video(path).timeline


def test_the_last_frame_that_begins_at_or_before_the_time_is_shown(encoded: Encoded) -> None:
    timeline = open_video(encoded(av1("uneven.mkv", time_base=Fraction(1, 1000), pts=UNEVEN))).timeline
    assert list(timeline.times_s[:4]) == [0, 0.04, 0.12, 0.24]
    assert timeline.indices_at([0, 0.039, 0.04, 0.119, 0.12]) == [0, 0, 1, 1, 2]
    for outside in (-0.001, timeline.end_s, 1e6, float("nan")):
        with pytest.raises(SelectionError):
            timeline.indices_at([0, outside])


def numbers(path: Path, window: Window, backend: str, tmp_path: Path) -> list[int]:
    start, end, nframes = window
    words = [f"--video-path={path}", f"--start={start}", f"--end={end}", f"--nframes={nframes}", "--clamp"]
    words.append(f"--backend={backend}")
    reply = tool.answer({"words": [*words, f"--save-root={tmp_path}", "--format=png"]})["ok"]
    stored = [read_number(read_picture(frame)) for frame in reply["frames"]]
    folder, _ = tool.save_frames(tool.parse_arguments([*words, f"--save-root={tmp_path}"]))
    assert [read_number(read_picture(folder / f"frame_{k:04d}.png")) for k in range(nframes)] == stored
    return stored


@pytest.mark.parametrize(
    ("recipe", "window", "shown", "backend"),
    [
        pytest.param(recipe, window, shown, backend, id=f"{backend} {recipe.name} {window}")
        for backend, recorded in (("auto", RECORDED), ("torchcodec", [*RECORDED, *FORCED]))
        for recipe, windows in recorded
        for window, shown in windows.items()
    ],
)
def test_store_and_command_give_the_frames_that_torchcodec_gave(
    *, encoded: Encoded, tmp_path: Path, recipe: Recipe, window: Window, shown: list[int], backend: str
) -> None:
    assert numbers(encoded(recipe), window, backend, tmp_path) == shown


def test_of_any_file_torchcodec_refuses_a_time_that_is_not_in_it(encoded: Encoded, tmp_path: Path) -> None:
    words = [f"--video-path={encoded(BY_RATE[0])}", f"--save-root={tmp_path}", "--start=1", "--end=99", "--nframes=2"]
    assert "ok" in tool.answer({"words": words})
    assert tool.answer({"words": [*words, "--backend=torchcodec"]})["kind"] == "refused"
    assert "ok" in tool.answer({"words": [*words, "--backend=torchcodec", "--clamp"]})
