"""The length and the size that the opening message names."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from corpus import Encoded
from videos import Recipe

from eva.errors import VideoError
from eva.protocol.messages import VideoInfo, user_prompt
from eva.video.index import probe

X264 = {"g": "20", "preset": "veryfast"}
STREAMED = {"live": "1"}  # neither the stream nor the container says how long it is


@pytest.mark.parametrize(
    ("recipe", "duration_s"),
    [
        (Recipe("streamed.mkv", "libx264", options=X264, container_options=STREAMED), 2.4),
        (Recipe("streamed-late.mkv", "libx264", options=X264, container_options=STREAMED, first_pts=50), 2.4),
        (Recipe("streamed.webm", "libvpx-vp9", options={"cpu-used": "8"}, container_options=STREAMED), 2.4),
        (Recipe("pictures.apng", "apng", pix_fmt="rgb24"), 2.4),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else "",
)
def test_a_streamed_video_is_as_long_as_its_frames_are_shown(
    encoded: Encoded, recipe: Recipe, duration_s: float
) -> None:
    with av.open(str(encoded(recipe))) as container:
        assert (container.duration, container.streams.video[0].duration) == (None, None)
    info = probe(encoded(recipe))
    assert info == VideoInfo(pytest.approx(duration_s, abs=2e-3), 160, 120)  # type: ignore[arg-type]


def test_a_length_is_rounded_to_six_decimals_as_ffprobe_prints_it(encoded: Encoded) -> None:
    # The last frame is shown for 0.04 s.
    fine, times = Fraction(1, 10_000_000), [0, 44_599_998]
    timescale = {"video_track_timescale": "10000000"}
    path = encoded(Recipe("fine.mp4", "libx264", 2, time_base=fine, pts=times, container_options=timescale))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.duration, stream.time_base) == (44_999_998, fine)
    assert probe(path).duration_s == 4.5
    assert user_prompt("?", probe(path)).startswith("Video Length: 4 seconds.")


VPX = {"cpu-used": "8"}
OPUS = "libopus"
SILENT_AFTER = [
    Recipe("sound.mkv", "libx264", options=X264, sound_s=12),
    Recipe("sound.webm", "libvpx", options=VPX, sound_s=12, sound_codec=OPUS),
    Recipe("sound.flv", "libx264", options=X264, sound_s=12),
    Recipe("sound.ts", "libx264", options=X264, sound_s=60),
    Recipe("sound.ogg", "libvpx", options=VPX, sound_s=12, sound_codec=OPUS),
    Recipe("sound.mp4", "libx264", options=X264, sound_s=12),
    Recipe("sound-fragmented.mp4", "libx264", container_options={"movflags": "frag_keyframe+empty_moov"}, sound_s=12),
    # The pictures begin after 2 s, or so late that FFmpeg sees none when it opens the file.
    Recipe("after-sound.mkv", "libx264", options=X264, first_pts=50, sound_s=12),
    Recipe("after-sound.flv", "libx264", options=X264, first_pts=50, sound_s=12),
    Recipe("after-sound.ts", "libx264", options=X264, first_pts=50, sound_s=60),
    Recipe("long-after-sound.mkv", "libx264", options=X264, first_pts=1000, sound_s=60),
    Recipe("long-after-sound.flv", "libx264", options=X264, first_pts=1000, sound_s=60),
]


@pytest.mark.parametrize("recipe", SILENT_AFTER, ids=lambda recipe: recipe.name)
def test_the_length_is_that_of_the_pictures_and_not_that_of_the_sound(encoded: Encoded, recipe: Recipe) -> None:
    assert probe(encoded(recipe)).duration_s == pytest.approx(2.4, abs=0.05)


def test_ffmpeg_may_seek_before_the_beginning_of_a_file_that_is_cut_off(encoded: Encoded, tmp_path: Path) -> None:
    data, path = encoded(Recipe("whole.nut", "libx264", options=X264)).read_bytes(), tmp_path / "cut.nut"
    path.write_bytes(data[: len(data) // 2])
    assert probe(path).duration_s == pytest.approx(1.2, abs=0.2)


@pytest.mark.parametrize(
    ("tags", "written", "said"),
    [
        ({}, b"DURATION", b"OTHER_ID"),  # no tag
        ({}, b"00:00:04.4", b"half a min"),
        ({}, b"00:00:04.4", b"00:00:00.0"),
        ({"_STATISTICS_TAGS": "DURATION"}, b"00:00:04.4", b"00:00:02.4"),  # mkvmerge writes the length, not the end
    ],
)
def test_a_tag_that_does_not_say_when_the_pictures_end_is_not_believed(
    encoded: Encoded, tmp_path: Path, tags: dict[str, str], written: bytes, said: bytes
) -> None:
    late = Recipe(f"late{len(tags)}.mkv", "libx264", options=X264, first_pts=50, sound_s=12, tags=tags)
    whole, path = encoded(late).read_bytes(), tmp_path / "tagged.mkv"
    assert written in whole
    path.write_bytes(whole.replace(written, said))
    assert probe(path).duration_s == pytest.approx(2.4, abs=2e-3)


FIRST = {"movflags": "faststart"}  # the list of frames is at the beginning, so a file that is cut off can be opened


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("listed.mp4", "libx264", options=X264, container_options=FIRST, sound_s=2.4),
        Recipe("fragmented.mp4", "libx264", options=X264, container_options={"movflags": "frag_keyframe"}),
    ],
    ids=lambda recipe: recipe.name,
)
def test_an_mp4_that_was_cut_off_is_broken_and_one_that_lacks_its_last_bytes_is_not(
    encoded: Encoded, tmp_path: Path, recipe: Recipe
) -> None:
    whole = encoded(recipe).read_bytes()
    path = tmp_path / recipe.name
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match="cut off"):
        probe(path)
    path.write_bytes(whole[:-100])
    assert probe(path).duration_s == pytest.approx(2.4, abs=0.05)
