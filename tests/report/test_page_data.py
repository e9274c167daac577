"""From records to what the page is made of: its rows, its records, its pictures and its figures."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import read_records, write_rows
from many_samples import HOSTILE, record
from PIL import Image

from eva.protocol.messages import RESPONSE_END, USER_PROMPT
from eva.records.read_transcript import find_question
from eva.records.result_file import read_scored
from eva.records.schema import read_record
from eva.report.collect import Collected, collect, columns, differences, page_data, read_sources, reading_order
from eva.report.collect import status as status_of
from eva.report.comparison import comparison_figures
from eva.report.page import block, compact
from eva.report.thumbnails import FrameRoots, Thumbnails

CALL = {"executed": {"start_s": 10.0, "end_s": 15.0, "times_s": [10.1, 14.9]}, "frames": ["/f/1.bmp", "/f/2.bmp"]}


def opening(question: str, end: str = "<|im_end|>\n") -> str:
    return "<|im_start|>user\n" + USER_PROMPT.format(length=60, resolution=720, question=question) + end


def test_the_question_is_what_follows_the_video_s_length() -> None:
    assert find_question(opening("What?\nA. 1\nB. 2") + "<|im_start|>assistant\nx<|im_end|>") == "What?\nA. 1\nB. 2"
    assert find_question("") == find_question("no opening") == ""


def test_another_chat_template_s_question_is_taken_from_the_tool_s_response() -> None:
    text = opening("What?", end="[/INST]") + "look" + RESPONSE_END.format(question="What?") + "more"
    assert find_question(text) == "What?"


@pytest.mark.parametrize(
    ("more", "owed"),
    [
        ({}, "right"),
        ({"answer": "A"}, "wrong"),
        ({"answer": " ", "stop_reason": "max_turns_exceeded"}, "unanswered"),
        ({"answer": "", "stop_reason": "exception"}, "failed"),
        ({"answer": "", "stop_reason": "exception", "failure": "sample"}, "failed"),
        ({"answer": "", "stop_reason": "openai_bad_request", "failure": "model"}, "unanswered"),
    ],
)
def test_a_sample_s_status_agrees_with_its_score(more: dict[str, Any], owed: str) -> None:
    assert status_of(read_record(record(**more)).outcome) == owed


def test_no_text_ends_its_block() -> None:
    written = block("x", compact({"a": "</script><script>alert(1)</script><!--"}))
    assert written.count("<") == 2 and written.endswith("</script>\n")


# --- from files to the parts of a page


def collected(folder: Path, records: Sequence[dict[str, Any]]) -> Collected:
    (source,) = read_sources([write_rows(folder / "result_own.jsonl", records)], {})
    return collect(source, 0, read_scored(source.path), {})


def answers(folder: Path, *samples: tuple[str, Sequence[int]]) -> Collected:
    """A result of samples that are each an answer and the numbers of its frames; B is right."""
    return collected(
        folder,
        [
            record(index=n, videos=[f"{n}.mp4"], answer=answer, category="x", total_tokens=100 * (1 + n), trajectory=[
                {"reply": answer, "calls": [{**CALL, "frames": [frame(folder, one) for one in frames]}]}
            ])
            for n, (answer, frames) in enumerate(samples)
        ],
    )  # fmt: skip


def frame(folder: Path, number: int) -> str:
    return str(folder.parent / f"{number}.png")


def unpacked(written: str) -> list[Any]:
    (found,) = re.findall(r">([^<]+)<", written)
    return [json.loads(line) for line in gzip.decompress(base64.b64decode(found)).splitlines()]


def test_the_page_holds_each_record_as_it_is_and_a_hostile_one_so_that_a_browser_reads_it(tmp_path: Path) -> None:
    records = [record(index=n, **more) for n, more in enumerate(HOSTILE)]
    run = collected(tmp_path / "a", records)
    text = compact(page_data([run], {}))
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) and text.isascii()
    (lines,) = map(unpacked, run.blocks)
    assert [line["index"] for line in lines] == list(range(len(HOSTILE)))
    for line, written in zip(lines, read_records(tmp_path / "a" / "result_own.jsonl"), strict=True):
        assert line["answer"] == str(written["answer"])


def test_columns_are_as_long_as_there_are_rows_and_repeat_no_text(tmp_path: Path) -> None:
    found = columns(answers(tmp_path / "a", *[("AB"[n % 2], []) for n in range(4)]).shown)
    assert found["index"] == [0, 1, 2, 3]
    assert [found["names"][n] for n in found["answer"]] == ["A", "B", "A", "B"]
    assert [[found["names"][n] for n in group] for group in found["categories"]] == [["x"]] * 4
    assert len(found["names"]) == len(set(found["names"]))
    assert {len(value) for name, value in found.items() if name != "names"} == {4}


def test_the_wrong_ones_come_first_and_of_two_results_the_flips(tmp_path: Path) -> None:
    before = answers(tmp_path / "a", ("B", [0, 1]), ("A", [2]), ("B", [3]))
    now = answers(tmp_path / "b", ("B", [0, 1]), ("A", [2]), ("C", [4]))
    order = [reading_order([before], compared=False), reading_order([before, now], compared=True)]
    assert [[int(Path(name).stem) for name in names] for names in order] == [[2, 0, 1, 3], [3, 4, 2, 0, 1]]
    assert differences(before, now) == [None, None, 0]


@pytest.fixture
def frames(tmp_path: Path) -> list[str]:
    """There are five frames, which show the same, and a sixth that is no picture."""
    names = [frame(tmp_path / "x", number) for number in range(6)]
    for name in names[:5]:
        Image.new("RGB", (160, 90), "orange").save(name)
    Path(names[5]).write_text("no picture")
    return names


def thumbnails(folder: Path, cap_bytes: int = 10**6) -> Thumbnails:
    return Thumbnails(FrameRoots.at(folder), cap_bytes, folder / "thumbnails")


def test_above_the_cap_no_picture_is_embedded_and_what_is_none_has_a_reason(tmp_path: Path, frames: list[str]) -> None:
    size = len(base64.b64encode(FrameRoots.at(tmp_path).thumbnail(frames[0])))
    made = thumbnails(tmp_path, 2 * size)
    order = [frames[number] for number in (5, 3, 1, 0, 2, 4)]
    assert list(made.make(order)) == order
    places = [made.places[name] for name in frames]
    addresses = [Path(name).as_uri() for name in frames]
    assert places == [
        [addresses[0]], [addresses[1], 1], [addresses[2]], [addresses[3], 0], [addresses[4]], ["not a readable picture"]
    ]  # fmt: skip
    assert (len(made.pictures), made.used_bytes, made.refused) == (2, 2 * size, {"not a readable picture": 1})


def test_a_thumbnail_is_made_once_and_again_only_for_another_frame(tmp_path: Path, frames: list[str]) -> None:
    first = thumbnails(tmp_path)
    list(first.make(frames))
    for known in (tmp_path / "thumbnails").iterdir():
        known.write_bytes(b"\xff\xd8 known")
    again = thumbnails(tmp_path)
    list(again.make(frames))
    assert {base64.b64decode(picture) for picture in again.pictures} == {b"\xff\xd8 known"}
    Image.new("RGB", (160, 90), "black").save(frames[0])
    os.utime(frames[0], ns=(1, 1))
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xff\xd8 secret")
    for known in list((tmp_path / "thumbnails").iterdir()):  # somebody else can write there, too
        known.unlink()
        known.symlink_to(secret)
    last = thumbnails(tmp_path)
    list(last.make(frames))
    assert last.pictures[1:] == first.pictures[1:] and last.pictures[0] != first.pictures[0]


def test_where_no_thumbnail_can_be_kept_the_page_has_it_all_the_same(tmp_path: Path, frames: list[str]) -> None:
    (tmp_path / "thumbnails").write_text("a file")
    made = thumbnails(tmp_path)
    list(made.make(frames))
    assert len(made.pictures) == 5


def test_the_head_has_the_figures_of_the_score(tmp_path: Path) -> None:
    samples: list[tuple[str, list[int]]] = [("B", []), ("A", []), ("", []), ("B", [])]
    run, few = answers(tmp_path / "a", *samples * 3), answers(tmp_path / "b", *samples)
    (head,), (other,) = (page_data([one], {})["heads"] for one in (run, few))
    assert (head["key"], head["dataset"], head["total"], head["correct"], head["accuracy"]) == ("own", None, 12, 6, 0.5)
    assert (head["average_rounds"], head["average_total_tokens"], head["so_far"]) == (2, 650, "")
    assert head["interval_95"] == run.file.score.interval_95 is not None and other["interval_95"] is None


def test_the_figures_of_a_comparison_are_now_minus_before(tmp_path: Path) -> None:
    before = answers(tmp_path / "a", ("B", []), ("A", []), ("A", []), ("B", []))
    now = answers(tmp_path / "b", ("B", []), ("B", []), ("B", []), ("C", []))
    pairs: Any = comparison_figures(before.file, now.file, ("a", "b"))["figures"]
    figures = dict(pairs)
    assert figures["Accuracy"].startswith("50.00 % in a, 75.00 % in b, difference +25.00 points")
    assert (figures["Right only in a"], figures["Right only in b"]) == ("1", "2")
    assert figures["Total tokens"].startswith("250.0000 in a, 250.0000 in b")
