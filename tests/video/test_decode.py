"""The frame returned is the frame asked for, bit for bit as in a full decode, in every codec and container."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
import pytest
from corpus import (
    CORPUS,
    ENTERED,
    FROM_THE_START,
    MPEG4,
    VPX,
    Encoded,
    full_decode,
    h264,
    named,
)
from numpy.typing import NDArray
from videos import Recipe, open_av, open_decord, open_video, picture, read_number

from eva.errors import MiscountedError, UndecodableError, VideoError
from eva.video import decode
from eva.video.container import OpenVideo, open_stream
from eva.video.decode import AHEAD, Video, at_once
from eva.video.index import probe


def pixels(video: Video, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    return video.frames(indices, lambda rgb: rgb)


def opened(path: Path) -> Video:
    """The video as the tool opens it, counted by decoding where its packets mislead."""
    video = open_video(path, backend="av")
    try:
        list(pixels(video, [len(video.timeline.times_s) - 1]))
    except MiscountedError:
        return open_video(path, backend="av", recount=True)
    return video


def assert_same_pictures(video: Video, indices: list[int], owed: list[NDArray[np.uint8]]) -> None:
    got = sorted(pixels(video, indices), key=lambda made: made[0])
    assert [index for index, _ in got] == sorted(set(indices))
    for index, rgb in got:
        assert np.array_equal(rgb, owed[index]), f"frame {index} differs from the full decode"


@named(CORPUS)
def test_the_frame_returned_is_the_frame_asked_for_as_a_full_decode_gives_it(encoded: Encoded, recipe: Recipe) -> None:
    path = encoded(recipe)
    owed, video, chance = full_decode(path), opened(path), random.Random(recipe.name)
    cut_off = max(0, -recipe.first_pts)
    assert [read_number(rgb) for rgb in owed] == list(range(cut_off, recipe.count))
    assert len(video.timeline.times_s) == len(owed)
    assert_same_pictures(video, list(range(len(owed))), owed)
    for size in (1, 1, 2, 3, 8):
        assert_same_pictures(video, chance.choices(range(len(owed)), k=size), owed)


# Frames that no other frame refers to are left out where nobody wants them.
SPARSE = [recipe for recipe in CORPUS if recipe.name in (
    "h264.mp4", "h264.mkv", "h264-fragmented.mp4", "h264-varying-rate.mkv", "h264-10bit.mp4", "h264-pyramid.mp4",
    "h264-slices.mp4", "h264-interlaced.mp4", "h264-open.mp4", "hevc.mp4", "hevc-open.mp4", "hevc-10bit.mkv",
    "hevc-layers.mp4", "h264.ts", "h264.flv", "hevc.ts", "mpeg4.mp4", "mpeg4.avi", "mpeg4.mkv",
)]  # fmt: skip
# Here every frame is decoded on the way: nothing is marked, or not in a way that is proven exact.
NOT_SPARSE = [recipe for recipe in CORPUS if any(word in recipe.name for word in (
    "no-b", "vp8", "vp9", "av1", "sorenson", "mjpeg", "ffv1",
))]  # fmt: skip


def left_out(path: Path) -> int:
    """How many frames the decoder does not give where only the last one is wanted."""
    with open_stream(path) as video:
        last = max(packet.pts or 0 for packet in video.packets())
    with open_stream(path, threads=1, strict=True) as video:
        return len(full_decode(path)) - len(list(video.frames(None, {last})))


@named(SPARSE)
def test_each_frame_alone_equals_the_full_decode_though_others_are_left_out(encoded: Encoded, recipe: Recipe) -> None:
    path = encoded(recipe)
    owed, video = full_decode(path), open_av(path)
    assert left_out(path) >= recipe.count // 6
    for index in range(len(owed)):
        # Not in a second attempt, which leaves nothing out.
        ((_, rgb),) = video._decode([(video.entry_for(index), [index])], lambda rgb: rgb, sparsely=True, threads=1)
        assert np.array_equal(rgb, owed[index]), f"frame {index}"


@named(NOT_SPARSE)
def test_nothing_is_left_out_where_that_is_not_proven_exact(encoded: Encoded, recipe: Recipe) -> None:
    assert left_out(encoded(recipe)) <= 0


INTRA_REFRESH = {"g": "20", "bf": "0", "preset": "veryfast", "x264-params": "intra-refresh=1"}


@named([h264("refreshed.mp4", options=INTRA_REFRESH), h264("refreshed.mkv", options=INTRA_REFRESH)])
def test_decoding_does_not_begin_where_an_intra_refresh_begins(encoded: Encoded, recipe: Recipe) -> None:
    path = encoded(recipe)
    owed, video = full_decode(path), open_av(path)
    assert len(video.index.entries) == 3
    for index in (10, 20, 30, 45, 59):
        assert_same_pictures(video, [index], owed)


@named(ENTERED)
def test_decoding_begins_at_the_keyframe_before_a_late_frame(encoded: Encoded, recipe: Recipe) -> None:
    entry = open_av(encoded(recipe)).entry_for(recipe.count - 1)
    assert entry is not None
    assert entry.index >= 30


@named(FROM_THE_START)
def test_decoding_begins_at_the_start_where_nothing_else_is_proven_exact(encoded: Encoded, recipe: Recipe) -> None:
    assert open_av(encoded(recipe)).entry_for(recipe.count - 1) is None


@named([recipe for recipe in CORPUS if recipe.name != "h264.avi"])  # which has none
def test_times_are_the_presentation_times_relative_to_the_start(encoded: Encoded, recipe: Recipe) -> None:
    timeline = opened(encoded(recipe)).timeline
    cut_off = max(0, -recipe.first_pts)
    unit = float(recipe.time_base or 1 / recipe.rate)
    owed = [unit * pts for pts in (recipe.pts or range(recipe.count - cut_off))]
    # AVI keeps no presentation times; FFmpeg counts from the first packet's turn to be decoded.
    delay = timeline.begin_s if recipe.name == "mpeg4.avi" else 0
    assert list(timeline.times_s) == pytest.approx([time + delay for time in owed], abs=2e-3)


# A frame at every second place of those that the stated rate has, as in AVI by stream copy, or where fields count.
DOUBLED: dict[str, Any] = {"rate": Fraction(50), "time_base": Fraction(1, 50), "pts": range(0, 500, 2), "count": 250}
STATED_TWICE = [
    Recipe("doubled-mjpeg.avi", "mjpeg", pix_fmt="yuvj420p", **DOUBLED),
    Recipe("doubled-mpeg4-b.avi", "mpeg4", options=MPEG4, **DOUBLED),
    h264("doubled.avi", **DOUBLED),
    h264("doubled.ts", **DOUBLED),
    Recipe("doubled-mpeg2.mpg", "mpeg2video", **DOUBLED),
    Recipe("doubled-mpeg2.ts", "mpeg2video", **DOUBLED),
]


@named(STATED_TWICE)
def test_frames_are_those_of_their_times_where_the_container_states_another_rate(
    encoded: Encoded, recipe: Recipe
) -> None:
    video = opened(encoded(recipe))
    times_s = [0.5, 2.3, 4.9, 5.1, 7.7, 8, 9, 9.9]
    indices = video.timeline.indices_at(times_s)
    shown = {index: read_number(rgb) for index, rgb in pixels(video, indices)}
    # MPEG program streams state a time for some of their frames only.
    assert [shown[index] for index in indices] == pytest.approx([25 * time_s for time_s in times_s], abs=6)
    assert video.timeline.end_s == pytest.approx(10, abs=0.3)


def test_h264_in_avi_whose_rate_varies_keeps_the_times_of_its_packets(encoded: Encoded) -> None:
    slowing = [*range(30), *range(30, 630, 3)]
    video = opened(encoded(h264("slowing.avi", count=230, pts=slowing, options={"g": "20", "bf": "0"})))
    (chosen,) = video.timeline.indices_at([20.01])
    assert slowing[read_number(dict(pixels(video, [chosen]))[chosen])] == pytest.approx(500, abs=3)


def test_a_rate_that_ffmpeg_guesses_from_the_first_frames_is_not_that_of_all(encoded: Encoded) -> None:
    slowing = [*range(30), *range(30, 630, 3)]
    timeline = open_av(encoded(Recipe("slowing.wmv", "wmv2", count=230, pts=slowing))).timeline
    assert timeline.average_fps == pytest.approx(229 / 627 * 25, rel=0.01)


@named([
    Recipe("doubled-vp8.webm", "libvpx", options=VPX, **DOUBLED),
    h264("doubled.mkv", **DOUBLED),
    h264("doubled.flv", **DOUBLED),
    h264("doubled.mp4", **DOUBLED),
])  # fmt: skip
def test_the_stated_rate_stays_where_decord_chooses_by_it(encoded: Encoded, recipe: Recipe) -> None:
    timeline = open_av(encoded(recipe)).timeline
    assert timeline.average_fps == pytest.approx(25 if recipe.name.endswith("mp4") else 50, rel=0.01)
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    decords = open_decord(encoded(recipe)).timeline
    times_s = [k / 10 for k in range(110)]
    assert timeline.indices_at(times_s) == decords.indices_at(times_s)


# Rows (a, b) and (c, d) of the display matrix, and the quarter turns that decord makes of them. The last four mirror.
TURNED = {
    (0, 1, -1, 0): -1, (-1, 0, 0, -1): 2, (0, -1, 1, 0): 1,
    (-1, 0, 0, 1): 2, (1, 0, 0, -1): 0, (0, 1, 1, 0): -1, (0, -1, -1, 0): 1,
}  # fmt: skip


@pytest.mark.parametrize("matrix", TURNED)
def test_a_video_that_is_shown_turned_or_mirrored_is_turned_as_decord_turns_it(
    encoded: Encoded, tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    def packed(a: int, b: int, c: int, d: int) -> bytes:
        return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)

    plain, path = encoded(h264("upright.mp4", count=8)), tmp_path / "turned.mp4"
    head, mark, track = plain.read_bytes().partition(b"tkhd")
    path.write_bytes(head + mark + track.replace(packed(1, 0, 0, 1), packed(*matrix), 1))
    upright, turned = dict(pixels(open_av(plain), [5])), dict(pixels(open_av(path), [5]))
    assert np.array_equal(turned[5], np.rot90(upright[5], TURNED[matrix]))
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    assert np.array_equal(turned[5], dict(pixels(open_decord(path), [5]))[5])


def test_decords_own_frames_are_served_also_where_they_are_wrong(encoded: Encoded) -> None:
    decord = pytest.importorskip("decord", reason="decord has no wheel for this platform")
    path = encoded(h264("h264.ts"))
    video = open_video(path, backend="decord")
    theirs = decord.VideoReader(str(path), ctx=decord.cpu(0)).get_batch([3, 20, 41]).asnumpy()
    ours = [rgb for _, rgb in pixels(video, [3, 20, 41])]
    assert np.array_equal(np.stack(ours), theirs)
    assert read_number(ours[0]) != 3


def remuxed(source: Path, target: Path, change: Callable[[int, bytes], bytes]) -> Path:
    """Copy a video packet by packet, with `change` of (place, bytes) applied."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copied = write.add_stream_from_template(stream)
        for place, packet in enumerate(p for p in read.demux(stream) if p.size):
            changed = av.Packet(change(place, bytes(packet)))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, copied
            write.mux(changed)
    return target


def test_a_hidden_vp8_frame_is_not_counted(encoded: Encoded, tmp_path: Path) -> None:
    hide = {5, 6, 30}  # by the header bit that says "decode me, do not show me"
    source = encoded(Recipe("vp8.webm", "libvpx", options=VPX))
    path = remuxed(
        source, tmp_path / "h.webm", lambda n, data: bytes([data[0] & 0xEF]) + data[1:] if n in hide else data
    )
    video, owed = open_av(path), full_decode(path)
    assert len(video.timeline.times_s) == len(owed) == 57
    assert_same_pictures(video, [4, 5, 40, 56], owed)
    assert video.entry_for(56) is not None  # hidden frames do not keep decoding from beginning at a keyframe


@pytest.mark.parametrize(
    ("name", "change", "count"),
    [
        ("h264.ts", lambda data: data * 2, 120),  # two broadcasts
        ("h264.ts", lambda data: data[len(data) // 188 // 8 * 188 :], 40),  # it begins between keyframes
    ],
)
def test_a_broadcast_is_counted_through_from_its_first_decodable_frame_on(
    encoded: Encoded, tmp_path: Path, name: str, change: Callable[[bytes], bytes], count: int
) -> None:
    path = tmp_path / name
    path.write_bytes(change(encoded(h264(name)).read_bytes()))
    video, owed = opened(path), full_decode(path)
    assert len(video.timeline.times_s) == len(owed) == count
    assert list(video.timeline.times_s) == sorted(video.timeline.times_s)
    assert_same_pictures(video, list(range(len(owed))), owed)


def test_packets_that_promise_other_frames_are_noticed_and_then_counted_by_decoding(encoded: Encoded) -> None:
    path = encoded(h264("h264.wmv"))  # ASF keeps no presentation times
    with pytest.raises(MiscountedError, match=r"h264\.wmv"):
        list(pixels(open_av(path), [40]))
    ((index, rgb),) = pixels(open_video(path, recount=True), [40])
    assert index == read_number(rgb) == 40


def damaged(source: Path, target: Path) -> Path:
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = random.Random(0).randbytes(3000)
    target.write_bytes(data)
    return target


FASTSTART = h264("long.mp4", count=200, container_options={"movflags": "faststart"})


def test_around_damage_frames_keep_their_index_and_a_lost_frame_is_an_error_that_names_it(
    encoded: Encoded, tmp_path: Path
) -> None:
    path = damaged(encoded(FASTSTART), tmp_path / "damaged.mp4")
    video = open_av(path)
    for index, rgb in pixels(video, [5, 90, 120, 121, 199]):
        assert read_number(rgb) == index
    with pytest.raises(VideoError, match=r"frame 105 at 4\.200 s of .*damaged\.mp4 cannot be decoded"):
        list(pixels(video, [5, 105, 150]))


@named([FASTSTART, h264("long.mkv", count=200)])
def test_a_cut_off_file_ends_at_the_cut(encoded: Encoded, tmp_path: Path, recipe: Recipe) -> None:
    data = encoded(recipe).read_bytes()
    path = tmp_path / f"cut{encoded(recipe).suffix}"
    path.write_bytes(data[: len(data) // 2])
    video = opened(path)
    times_s = video.timeline.times_s
    assert 90 < len(times_s) < 110
    assert video.timeline.end_s == pytest.approx(times_s[0] + len(times_s) / 25, abs=0.2)
    for index, rgb in pixels(video, range(len(times_s))):
        assert read_number(rgb) == round(times_s[index] * 25)


def song_with_cover(folder: Path) -> Path:
    """An audio file whose only picture is its cover."""
    path = folder / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        assert isinstance(sound, av.AudioStream)
        assert isinstance(cover, av.VideoStream)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 44100), np.float32), format="fltp", layout="stereo")
        silence.sample_rate = 44100
        for packets in (sound.encode(silence), sound.encode(None), cover.encode(None)):
            container.mux(packets)
    return path


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"song\.mp3 holds no video stream"):
        open_video(song_with_cover(tmp_path))


def cropped(source: Path, target: Path, crop: str) -> Path:
    """An H.264 file whose pictures the decoder is told to crop, such as "crop_left=16"."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copied = write.add_stream_from_template(stream)
        tell = av.BitStreamFilterContext(f"h264_metadata={crop}", stream, copied)
        for packet in read.demux(stream):
            for changed in tell.filter(packet):
                changed.stream = copied
                write.mux(changed)
    return target


def test_what_is_cropped_from_the_left_is_scaled_to_the_size_of_the_video_as_decord_scales_it(
    encoded: Encoded, tmp_path: Path
) -> None:
    path = cropped(encoded(h264("h264.mp4")), tmp_path / "cropped.mp4", "crop_left=16:crop_top=10")
    video = opened(path)
    assert (video.timeline.width, video.timeline.height) == (144, 110) == (probe(path).width, probe(path).height)
    (_, rgb), *_ = pixels(video, [20])
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    (_, decords), *_ = pixels(open_decord(path), [20])
    assert np.abs(rgb.astype(int) - decords).mean() < 4  # FFmpeg scales a little otherwise today


def two_videos(folder: Path) -> Path:
    """An MP4 with two video streams, of which the second one is the default. The first one has the higher bit rate."""
    path = folder / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25, options={"crf": crf}) for crf in ("10", "45")]
        for stream, width, disposition in zip(streams, (160, 320), (0, 1), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 120, "yuv420p"
            stream.disposition = av.stream.Disposition(disposition)
        for number in range(30):
            for stream in streams:
                shown = picture(number, width=stream.width, height=stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def test_of_two_video_streams_the_first_one_is_meant_also_where_the_other_one_is_the_default(tmp_path: Path) -> None:
    path = two_videos(tmp_path)
    assert probe(path).width == 160
    video = opened(path)
    assert (video.timeline.width, len(video.timeline.times_s)) == (160, 30)
    (_, rgb), *_ = pixels(video, [20])
    assert read_number(rgb) == 20
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    assert open_decord(path).timeline.width == 160


@pytest.mark.parametrize("backend", ["auto", "av", "decord"])
def test_what_is_not_a_file_is_named(tmp_path: Path, backend: str) -> None:
    with pytest.raises(VideoError, match=r"absent\.mp4 cannot be read: No such file"):
        open_video(tmp_path / "absent.mp4", backend=backend)
    with pytest.raises(VideoError, match="not a video but a folder"):
        open_video(tmp_path, backend=backend)


@pytest.mark.process
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_a_playlist_does_not_reach_the_network(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/clip.ts"
        (tmp_path / name).write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(VideoError, match="list"):
            open_video(tmp_path / name, backend="av")
        with pytest.raises(TimeoutError):
            server.accept()


def test_auto_takes_decord_where_av_makes_nothing_of_the_file(
    encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this platform")

    def refuse(video: OpenVideo, **_: object) -> NoReturn:
        raise UndecodableError(f"av makes nothing of {video.path}")

    monkeypatch.setattr(decode, "read_index", refuse)
    path = encoded(h264("h264.mp4"))
    assert open_video(path).decoder == "decord"
    with pytest.raises(UndecodableError, match="av makes nothing"):
        open_video(path, backend="av")


# --- decoders that run at the same time


def test_no_generator_works_further_ahead_than_it_may_and_none_is_left_at_work() -> None:
    made, closed = list[int](), list[bool]()

    def endless() -> Iterator[int]:
        try:
            while True:
                made.append(len(made))
                yield made[-1]
        finally:
            closed.append(True)

    before = threading.active_count()
    items = at_once([endless])
    assert [next(items), next(items)] == [0, 1]
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert closed == [True]
    assert len(made) <= 2 + 2 * AHEAD
