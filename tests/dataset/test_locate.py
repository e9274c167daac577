"""The stem rule: a video in another container than the annotation names is found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva.dataset.items import Item, locate_video, locate_videos
from eva.errors import VideoError

# As the page of the datasets names them.
SUFFIXES = [".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".wmv", ".3gp"]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("there", "annotated", "found"),
    [
        (["x.mxf", "x.mxf.mp4"], "x.mxf", "x.mxf"),
        (["lecture 1.mp4", "lecture 1.5.mkv"], "lecture 1.5", "lecture 1.5.mkv"),
        (["x.mkv"], "x.MP4", "x.mkv"),
        *(([f"-O6mJ0VBTc4{suffix}"], "-O6mJ0VBTc4.mp4", f"-O6mJ0VBTc4{suffix}") for suffix in [*SUFFIXES, ".MKV"]),
        *(([name], "x.webm", None) for name in ("x.txt", "x.mp4.part", "x.f137.mp4", "xx.mp4", "x", "x.jpg")),
        # Characters of patterns are only characters.
        *((["x.mkv", "y.mp4"], f"{name}.mp4", None) for name in ("*", "[xy]", "?", "**", "x*")),
        *((["x.mkv", f"{name}.mkv"], f"{name}.mp4", f"{name}.mkv") for name in ("*", "[xy]")),
        *(([], name, None) for name in ("a" * 300 + ".mp4", "a\0b.mp4", "/")),
    ],
)
def test_a_video_is_found_by_its_name_or_by_its_stem_in_another_container(tmp_path, there, annotated, found):
    touch(tmp_path, *there)
    if found:
        assert locate_video(tmp_path / annotated) == tmp_path / found
        return
    with pytest.raises(VideoError):
        locate_video(tmp_path / annotated)


def test_of_several_containers_the_annotated_one_wins_and_then_the_first_of_the_page(tmp_path):
    touch(tmp_path, *(f"x{suffix}" for suffix in SUFFIXES))
    assert locate_video(tmp_path / "x.webm") == tmp_path / "x.webm"
    for suffix in SUFFIXES:
        assert locate_video(tmp_path / "x") == tmp_path / f"x{suffix}"
        (tmp_path / f"x{suffix}").unlink()


def test_a_folder_and_a_dead_link_are_no_videos_and_a_live_link_is(tmp_path):
    touch(tmp_path, "there.mp4")
    (tmp_path / "x.mp4").mkdir()
    (tmp_path / "x.mkv").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "x.webm").symlink_to(tmp_path / "there.mp4")
    assert locate_video(tmp_path / "x.mp4") == tmp_path / "x.webm"


def test_every_video_is_looked_for_once_and_only_the_first_of_a_question(tmp_path):
    touch(tmp_path, "a.mp4", "b.webm")
    names = ["b.mp4", "a.mp4", "gone.mp4", "a.mp4", "gone.mp4", "../a.mp4"]
    items = [Item(index, (name, "z.mp4"), (), "A") for index, name in enumerate(names)]
    places = locate_videos(items, tmp_path)
    assert list(places) == sorted(set(names))
    assert (places["a.mp4"], places["b.mp4"]) == (tmp_path / "a.mp4", tmp_path / "b.webm")
    assert "leaves the video root" in str(places["../a.mp4"])
    assert isinstance(places["gone.mp4"], VideoError)
