"""The stem rule: a video in another container than the annotation names is found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva.dataset.items import VIDEO_SUFFIXES, Item, locate_video, locate_videos
from eva.errors import VideoError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_an_annotated_file_needs_no_known_suffix(tmp_path):
    touch(tmp_path, "x.mxf", "x.mxf.mp4")
    assert locate_video(tmp_path / "x.mxf") == tmp_path / "x.mxf"


@pytest.mark.parametrize("suffix", [*VIDEO_SUFFIXES, ".MKV", ".MP4"])
def test_another_container_is_found_by_the_stem(tmp_path, suffix):
    touch(tmp_path, f"-O6mJ0VBTc4{suffix}")
    for annotated in ("-O6mJ0VBTc4.mp4", "-O6mJ0VBTc4.MP4"):
        assert locate_video(tmp_path / annotated) == tmp_path / f"-O6mJ0VBTc4{suffix}"


def test_the_containers_are_those_of_the_page_on_the_datasets_in_its_order(tmp_path):
    suffixes = [".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".wmv", ".3gp"]
    touch(tmp_path, *(f"x{suffix}" for suffix in suffixes))
    assert locate_video(tmp_path / "x.webm") == tmp_path / "x.webm"
    for suffix in suffixes:
        assert locate_video(tmp_path / "x") == tmp_path / f"x{suffix}"
        (tmp_path / f"x{suffix}").unlink()
    with pytest.raises(VideoError):
        locate_video(tmp_path / "x")


def test_a_name_without_a_container_gets_one(tmp_path):
    touch(tmp_path, "lecture 1.mp4", "lecture 1.5.mkv")
    assert locate_video(tmp_path / "lecture 1.5") == tmp_path / "lecture 1.5.mkv"


@pytest.mark.parametrize("other", ["x.txt", "x.mp4.part", "x.f137.mp4", "xx.mp4", "x", "x.jpg"])
def test_a_file_of_another_kind_or_stem_is_not_taken(tmp_path, other):
    touch(tmp_path, other)
    with pytest.raises(VideoError) as caught:
        locate_video(tmp_path / "x.webm")
    assert str(tmp_path / "x.webm") in str(caught.value)
    assert "missing, in another container too" in str(caught.value)


@pytest.mark.parametrize("name", ["*.mp4", "[xy].mp4", "?.mp4", "**.mp4", "x*.mp4"])
def test_characters_of_patterns_are_only_characters(tmp_path, name):
    touch(tmp_path, "x.mkv", "y.mp4")
    with pytest.raises(VideoError):
        locate_video(tmp_path / name)
    touch(tmp_path, name.replace(".mp4", ".mkv"))
    assert locate_video(tmp_path / name) == tmp_path / name.replace(".mp4", ".mkv")


def test_a_folder_is_no_video(tmp_path):
    (tmp_path / "x.mp4").mkdir()
    touch(tmp_path, "x.mkv")
    assert locate_video(tmp_path / "x.mp4") == tmp_path / "x.mkv"


def test_a_dead_link_is_no_video_and_a_live_one_is(tmp_path):
    touch(tmp_path, "there.mp4")
    (tmp_path / "x.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "x.webm").symlink_to(tmp_path / "there.mp4")
    assert locate_video(tmp_path / "x.mp4") == tmp_path / "x.webm"


@pytest.mark.parametrize("name", ["a" * 300 + ".mp4", "a\0b.mp4"])
def test_a_name_no_file_can_have_is_a_missing_video(tmp_path, name):
    with pytest.raises(VideoError):
        locate_video(tmp_path / name)


def test_a_path_without_a_name_is_a_missing_video():
    with pytest.raises(VideoError, match="names no video file"):
        locate_video(Path("/"))


def test_every_video_is_looked_for_once_and_only_the_first_of_a_question(tmp_path):
    touch(tmp_path, "a.mp4", "b.webm")
    names = ["b.mp4", "a.mp4", "gone.mp4", "a.mp4", "gone.mp4", "../a.mp4"]
    items = [Item(index, (name, "z.mp4"), (), "A") for index, name in enumerate(names)]
    places = locate_videos(items, tmp_path)
    assert list(places) == sorted(set(names))
    assert (places["a.mp4"], places["b.mp4"]) == (tmp_path / "a.mp4", tmp_path / "b.webm")
    assert "leaves the video root" in str(places["../a.mp4"])
    assert isinstance(places["gone.mp4"], VideoError)
