"""Annotation lines become items, or a sentence that names file and line; video paths stay under their root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import row
from hypothesis import given
from hypothesis import strategies as st

from eva.dataset.items import AnnotationError, Item, load_items, video_path
from eva.errors import EvaError


def load(folder: Path, *lines: str) -> list[Item]:
    path = folder / "questions.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return load_items(path)


def lines(*rows: dict[str, Any]) -> list[str]:
    return [json.dumps(one) for one in rows]


def item(video: str) -> Item:
    return Item(index=0, videos=(video,), prompt=({"role": "user", "content": "Q"},), ground_truth="A", extra={})


# --- the rules


def test_a_line_becomes_an_item_with_its_extra_keys(tmp_path: Path) -> None:
    (one,) = load(tmp_path, *lines(row("q", video="a/b.mp4", truth="C", index=7, question_type=["x"])))
    assert (one.index, one.videos, one.ground_truth) == (7, ("a/b.mp4",), "C")
    assert dict(one.prompt[0]) == {"role": "user", "content": "[[q]] What is shown?\nA. one\nB. two"}
    assert one.extra == {"question_type": ["x"]}


@pytest.mark.parametrize(("truth", "owed"), [(1, "1"), (1.5, "1.5"), (True, "True"), (False, "False"), ("", "")])
def test_a_ground_truth_that_is_no_text_becomes_the_text_that_is_compared(
    tmp_path: Path, truth: Any, owed: str
) -> None:
    (one,) = load(tmp_path, json.dumps({**row("q"), "reward_model": {"ground_truth": truth}}))
    assert one.ground_truth == owed


def test_of_a_turn_role_and_content_are_sent_and_no_other_key(tmp_path: Path) -> None:
    raw = row("q")
    raw["prompt"][0] |= {"name": "Ann", "weight": float("nan")}
    (one,) = load(tmp_path, json.dumps(raw))
    assert dict(one.prompt[0]) == {"role": "user", "content": raw["prompt"][0]["content"]}


def test_blank_lines_are_skipped_and_still_counted(tmp_path: Path) -> None:
    items = load(tmp_path, "", *lines(row("a")), " \t", *lines(row("b")))
    assert [one.index for one in items] == [1, 3]


@pytest.mark.parametrize("index", [None, "5", 5.0, [5], "", {}, True, False], ids=repr)
def test_a_non_integer_index_becomes_the_line_number_counted_from_0(tmp_path: Path, index: Any) -> None:
    items = load(tmp_path, *lines(row("a", index=100), row("b", index=index), row("c")))
    assert [one.index for one in items] == [100, 1, 2]


def test_the_bytes_of_a_prompt_stay_as_they_are(tmp_path: Path) -> None:
    raw = row("q")
    raw["prompt"][0]["content"] = text = "Q?\\n(A) one\u2028two\u0085three\x0bfour\\n(B) two "
    (one,) = load(tmp_path, "\ufeff" + json.dumps(raw, ensure_ascii=False))
    assert one.prompt[0]["content"] == text


TURN = {"role": "user", "content": "Q?"}
WRONG: list[dict[str, Any]] = [
    *({"videos": value} for value in ([], "clip.mp4", [3], ["clip.mp4", 3], [""], None)),
    *({"prompt": [*turns]} for turns in (["Q?"], [{"role": "user"}], [TURN, {"role": "user"}])),
    *({"prompt": [{"role": "user", "content": content}, TURN]} for content in (None, [], [{"type": "text"}])),
    *({"prompt": value} for value in ("Q?", None)),
    *({"reward_model": value} for value in ({}, None, *({"ground_truth": truth} for truth in (None, ["A"], {"A": 1})))),
]
BAD = [
    *("{", "[]", "null", "7", '"text"', "{}", "[" * 100_000, '{"index": ' + "9" * 10_000 + "}"),
    *(json.dumps({**row("q"), **change}) for change in WRONG),
    json.dumps(row("q"))[:-1] + ', "more": ' + "[" * 500 + "]" * 500 + "}",
]


@pytest.mark.parametrize("bad", BAD, ids=lambda text: text[:40] + text[-5:])
def test_a_line_that_is_not_an_item_is_named_by_file_and_number(tmp_path: Path, bad: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        load(tmp_path, *lines(row("a"), row("b")), bad, *lines(row("c")))
    message = str(caught.value)
    assert "questions.jsonl" in message
    assert "3" in message.split("questions.jsonl")[1], "the third line, counted from 1 as editors do"
    assert "\n" not in message
    assert len(message) < 2000, "a sentence, not the line"


@pytest.mark.parametrize("rows", [(row("a", index=4), row("b", index=4)), (row("a", index=1), row("b"))])
def test_two_lines_with_one_index_are_refused(tmp_path: Path, rows: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(AnnotationError) as caught:
        load(tmp_path, *lines(*rows))
    assert "questions.jsonl" in str(caught.value)
    assert str(rows[0]["index"]) in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\n \t\n", b"\xff\xfe\x00\x80" * 20])
def test_a_file_that_is_absent_or_empty_or_no_text_is_an_annotation_error(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "questions.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AnnotationError, match=r"questions\.jsonl"):
        load_items(path)


# --- video paths


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        *((name, name) for name in ("a/b c'%23.mp4", "a/MVLU/MLVU/x.mp4", "MVLU/MLVU/x.mp4")),
        *((f"{folder}/MVLU/MLVU/x.mp4", "x.mp4") for folder in ("", "/a", "/a/MLVU")),
        ("/mnt/x/.cache/MVLU/MLVU/video/1_plotQA/movie101_66.mp4", "video/1_plotQA/movie101_66.mp4"),
        ("/a/MVLU/MLVU/MVLU/MLVU/x.mp4", "MVLU/MLVU/x.mp4"),
    ],
)
def test_the_first_mlvu_prefix_of_an_absolute_path_counts_and_none_of_a_relative_one(
    name: str, relative: str, tmp_path: Path
) -> None:
    assert video_path(item(name), tmp_path) == tmp_path / relative


@pytest.mark.parametrize("name", ["/a/MVLU/MLVU", "/MVLU/MLVU/", "/a/MVLU/x.mp4", "/a/MLVU/MVLU/x.mp4"])
def test_an_absolute_path_with_nothing_after_the_mlvu_prefix_is_not_inside_the_root(name: str, tmp_path: Path) -> None:
    with pytest.raises(EvaError, match="is not inside the video root"):
        video_path(item(name), tmp_path)


def test_an_absolute_path_elsewhere_is_refused_with_the_root_that_holds_it(tmp_path: Path) -> None:
    with pytest.raises(EvaError, match="--video-root /"):
        video_path(item("/data/clip.mp4"), tmp_path)
    assert video_path(item("/data/clip.mp4"), Path("/")) == Path("/data/clip.mp4")
    assert video_path(item("/data/clip.mp4"), Path("/data")) == Path("/data/clip.mp4")


@given(st.lists(st.sampled_from(["..", ".", "a", "/", "MVLU", "MLVU", "~", "$HOME", "\n", " "]), max_size=8))
def test_no_path_at_all_leaves_the_video_root(parts: list[str]) -> None:
    root = Path("/srv/videos")
    try:
        found = video_path(item("/".join(parts)), root)
    except EvaError:
        return
    assert found.is_relative_to(root)
    assert ".." not in found.parts
