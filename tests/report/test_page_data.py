"""From records to what the report's page is made of: the question, the rows, the details."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from harness import SHARED, write_rows
from PIL import Image

from eva.protocol.messages import RESPONSE_END, USER_PROMPT
from eva.records.read_transcript import find_question
from eva.records.schema import Record, read_record
from eva.report.collect import Choice, Collected, collect, differences, read_sources, reading_order
from eva.report.comparison import comparison_figures
from eva.report.details import detail, frames_of
from eva.report.head import make_head
from eva.report.page import Blocks, block, compact
from eva.report.question import Question, read_question
from eva.report.rows import columns, make_row, status
from eva.report.thumbnail_blocks import ThumbnailBlocks
from eva.report.thumbnails import FrameRoots

ASKED = {"start_time": "00:10", "end_time": 20, "nframes": 3, "resize": 0.5}
CALL = {
    "asked": ASKED,
    "budgeted": {"nframes": 2, "resize": 0.25, "tokens": 8},
    "executed": {"start_s": 10.0, "end_s": 15.0, "times_s": [10.1, 14.9], "width": 56, "height": 28, "decoder": "av"},
    "frames": ["/f/1.bmp", "/f/2.bmp"],
    "tokens": 8,
    "error": None,
    "reason": None,
}
ROUND = {"reply": "Look.", "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, "seconds": 0.5}


def opening(question: str, end: str = "<|im_end|>\n") -> str:
    return "<|im_start|>user\n" + USER_PROMPT.format(length=60, resolution=720, question=question) + end


def record(**more: Any) -> dict[str, Any]:
    basic = {"index": 3, "videos": ["a/clip.mp4"], "messages": opening("Q?\nA. one\nB. two"), "gt": "B", "answer": "B",
             "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 100}  # fmt: skip
    return {**basic, **more}


def typed(**more: Any) -> Record:
    return read_record(record(**more))


def details(*, timestamps: str = "requested", **more: Any) -> dict[str, Any]:
    made = typed(**more)
    return detail(made, make_row(made, "own"), timestamps=timestamps)


def only_call(**more: Any) -> dict[str, Any]:
    (found,) = details(trajectory=[{**ROUND, "calls": [{**CALL, **more}]}])["trajectory"][0]["calls"]
    return found


# --- the question


def test_the_question_is_what_follows_the_video_s_length() -> None:
    assert find_question(opening("What?\nA. 1\nB. 2") + "<|im_start|>assistant\nx<|im_end|>") == "What?\nA. 1\nB. 2"
    assert find_question("") == find_question("no opening") == ""


def test_another_chat_template_s_question_is_taken_from_the_tool_s_response() -> None:
    text = opening("What?", end="[/INST]") + "look" + RESPONSE_END.format(question="What?") + "more"
    assert find_question(text) == "What?"


@pytest.mark.parametrize(
    "lines",
    ["What?\nA. one\nB. two\nOnly the letter.", "What?\\nA: one\\nB: two\\nOnly the letter.",
     "What?\n(A) one\n(B) two\nOnly the letter.", " What?\n A) one\n B) two\nOnly the letter. "],
)  # fmt: skip
def test_options_are_read_in_each_dataset_s_form(lines: str) -> None:
    assert read_question(lines) == Question("What?", (("A", "one"), ("B", "two")), "Only the letter.")


def test_an_option_may_have_several_lines() -> None:
    assert read_question("Q\nA. one\nmore\nB. two").options == (("A", "one\nmore"), ("B", "two"))


def test_a_lone_letter_is_no_option() -> None:
    assert read_question("A. Lincoln was who?") == Question("A. Lincoln was who?")
    assert read_question("Q\nB. two\nC. three") == Question("Q\nB. two\nC. three")


def test_the_questions_of_the_six_datasets_have_options() -> None:
    folder = SHARED / "annotations"
    if not folder.is_dir():
        pytest.skip("the annotation files are not here")
    files = sorted(folder.glob("*.jsonl"))
    assert len(files) == 6
    for path in files:
        with path.open(encoding="utf-8") as file:
            texts = [json.loads(line)["prompt"][-1]["content"] for line in file]
        with_options = sum(len(read_question(text).options) >= 2 for text in texts)
        assert with_options >= 0.99 * len(texts), f"{path.name}: {with_options} of {len(texts)}"


# --- rows


def test_a_sample_s_status_agrees_with_its_score() -> None:
    assert status(typed().outcome) == "right"
    assert status(typed(answer="A").outcome) == "wrong"
    assert status(typed(answer=" ", stop_reason="max_turns_exceeded").outcome) == "unanswered"
    assert status(typed(answer="", stop_reason="exception").outcome) == "failed"
    assert status(typed(answer="", failure="sample", stop_reason="exception").outcome) == "failed"
    assert status(typed(answer="", failure="model", stop_reason="openai_bad_request").outcome) == "unanswered"


def test_columns_are_as_long_as_there_are_rows_and_repeat_no_text() -> None:
    rows = [make_row(typed(index=n, answer="AB"[n % 2], category="x"), "own") for n in range(4)]
    found = columns(rows)
    assert found["index"] == [0, 1, 2, 3]
    assert [found["names"][n] for n in found["answer"]] == ["A", "B", "A", "B"]
    assert [[found["names"][n] for n in group] for group in found["categories"]] == [["x"]] * 4
    assert len(found["names"]) == len(set(found["names"]))
    assert {len(value) for name, value in found.items() if name != "names"} == {4}


# --- details


def test_a_call_shows_what_was_asked_budgeted_and_executed() -> None:
    call = only_call()
    assert (call["asked_s"], call["asked_nframes"], call["asked_resize"]) == ([10, 20], 3, 0.5)
    assert (call["nframes"], call["resize"], call["tokens"]) == (2, 0.25, 8)
    assert (call["executed_s"], call["width"], call["decoder"]) == ([10.0, 15.0], 56, "av")


def test_a_frame_has_its_time_and_the_label_that_the_model_saw() -> None:
    assert [(f["time_s"], f["label"]) for f in only_call()["frames"]] == [(10.1, "00:10"), (14.9, "00:20")]
    found = details(trajectory=[{**ROUND, "calls": [CALL]}], timestamps="actual")
    assert [frame["label"] for frame in frames_of(found)] == ["00:10", "00:14"]


def test_the_frames_that_an_agent_opens_with_are_shown_in_the_first_round() -> None:
    found = details(schema=1, agent="uniform", opening=[CALL], trajectory=[{**ROUND, "calls": []}])
    assert [frame["name"] for frame in frames_of(found)] == ["/f/1.bmp", "/f/2.bmp"]


def test_frames_without_times_of_their_own_still_stand_in_order() -> None:
    frames = only_call(executed={"seconds": 1.0})["frames"]
    assert [(f["name"], f["time_s"], f["label"]) for f in frames] == [
        ("/f/1.bmp", None, "00:10"), ("/f/2.bmp", None, "00:20")
    ]  # fmt: skip
    assert [f["time_s"] for f in only_call(executed={"times_s": [1.0]})["frames"]] == [None, None]


def test_the_reference_s_records_show_their_transcript() -> None:
    text = opening("Q?") + "<|im_start|>assistant\nHm. <answer>B</answer><|im_end|>\n"
    found = details(messages=text)
    assert found["trajectory"] is None
    assert found["turns"][-1] == ["assistant", "Hm. <answer>B</answer>"]
    assert details(messages=[], trajectory=[])["turns"] == []
    assert details(messages=[{"role": "user", "content": "Q?"}])["turns"] == [], "of a run without a tokenizer"


def test_the_annotation_s_own_keys_are_shown_and_the_large_ones_are_not() -> None:
    found = details(Explanation="since", uid=7, trajectory=[])
    assert found["extra"] == [["Explanation", "since"], ["uid", "7"]]


HOSTILE: tuple[dict[str, Any], ...] = (
    {
        "trajectory": [
            None,
            5,
            "x",
            [],
            {"calls": {"a": 1}},
            {"calls": [None, 7, {"asked": [1], "executed": 3, "frames": "x"}]},
        ]
    },
    {"trajectory": [{**ROUND, "usage": [1], "seconds": float("nan"), "reply": {"a": 1}, "finish_reason": 5}]},
    {"trajectory": [{"calls": [{**CALL, "asked": {"start_time": 1e308, "end_time": -1e308, "nframes": 2}}]}]},
    {"trajectory": [{"calls": [{**CALL, "asked": {"start_time": 10**400, "end_time": 1, "nframes": 10**400}}]}]},
    {"trajectory": [{"calls": [{**CALL, "asked": {"start_time": float("inf"), "end_time": True, "nframes": 2}}]}]},
    {"trajectory": [{"calls": [{**CALL, "frames": [None, 5, {"a": 1}], "executed": {"times_s": [1, "x", None]}}]}]},
    {"time_reference": ["x"], "video_duration_s": "long", "seconds": float("inf"), "videos": "x", "gt": {"a": 1}},
    {"messages": "\ud800" + opening("\udfff?\nA. \u2028\nB. </script>"), "answer": ["B"], "category": {"a": 1}},
    {"estimated_visual_tokens": float("nan"), "error": {"x": [1]}, "failure": [], "extra": float("inf")},
)


@pytest.mark.parametrize("more", HOSTILE, ids=range(len(HOSTILE)))
def test_any_record_gives_json_that_a_browser_takes(more: dict[str, Any]) -> None:
    made = typed(**more)
    row = make_row(made, "own")
    for value in (detail(made, row, timestamps="requested"), columns([row])):
        text = compact(value)
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert text.isascii()


def test_no_text_ends_its_block() -> None:
    written = block("x", compact({"a": "</script><script>alert(1)</script><!--"}))
    assert written.count("<") == 2 and written.endswith("</script>\n")


# --- from files to the parts of a page


@pytest.fixture
def thumbnails(tmp_path: Path) -> ThumbnailBlocks:
    """There are five frames, which show the same, and a sixth that is no picture."""
    for number in range(5):
        Image.new("RGB", (160, 90), "orange").save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_text("no picture")
    return ThumbnailBlocks(FrameRoots.at(tmp_path), 10**6, Blocks(io.BytesIO()), ThreadPoolExecutor(1))


def collected(name: str, made: ThumbnailBlocks, *samples: tuple[str, Sequence[int]]) -> Collected:
    """A result of samples that are each an answer and the numbers of its frames; B is right."""
    root = made.roots.folders[0]
    rows = [
        record(index=n, videos=[f"{n}.mp4"], answer=answer, category="x", total_tokens=100 * (1 + n), trajectory=[
            {**ROUND, "reply": answer, "calls": [{**CALL, "frames": [str(root / f"{one}.png") for one in frames]}]}
        ])
        for n, (answer, frames) in enumerate(samples)
    ]  # fmt: skip
    (source,) = read_sources([write_rows(root / name / "result_own.jsonl", rows)], {})
    run = Collected(source, {})
    collect(run, 0, Choice(), made.blocks, made)
    return run


def read_block(blocks: Blocks, name: str) -> bytes:
    blocks.file.seek(0)
    (found,) = re.findall(rf'id="data-{name}">([^<]*)<'.encode(), blocks.file.read())
    return bytes(found)


def test_the_wrong_ones_come_first_and_of_two_results_the_flips(thumbnails: ThumbnailBlocks) -> None:
    before = collected("a", thumbnails, ("B", [0, 1]), ("A", [2]), ("B", [3]))
    now = collected("b", thumbnails, ("B", [0, 1]), ("A", [2]), ("C", [4]))
    assert list(reading_order([before], compared=False)) == [2, 0, 1, 3]
    assert list(reading_order([before, now], compared=True)) == [3, 4, 2, 2, 0, 1, 0, 1]
    assert differences(before, now) == [None, None, 0]


def test_above_the_cap_no_picture_is_embedded_and_what_is_none_has_a_reason(thumbnails: ThumbnailBlocks) -> None:
    collected("a", thumbnails, ("B", [0, 1, 2, 3, 4, 5]))
    size = len(base64.b64encode(thumbnails.roots.thumbnail(str(thumbnails.roots.folders[0] / "0.png"))))
    thumbnails.cap_bytes = 2 * size
    thumbnails.write([5, 3, 1, 0, 2, 4])
    places = [
        json.loads(line)
        for line in gzip.decompress(base64.b64decode(read_block(thumbnails.blocks, "frames-0"))).splitlines()
    ]
    assert [place.get("at") for place in places] == [None, 1, None, 0, None, None]
    assert ["url" in place for place in places] == [True] * 5 + [False]
    assert len(json.loads(read_block(thumbnails.blocks, "pictures-0"))) == 2
    assert (thumbnails.frames, thumbnails.embedded, thumbnails.linked, thumbnails.used_bytes) == (6, 2, 3, 2 * size)
    assert thumbnails.refused == {"not a readable picture": 1}


def test_the_head_has_the_figures_of_the_score(thumbnails: ThumbnailBlocks) -> None:
    answers: list[tuple[str, list[int]]] = [("B", []), ("A", []), ("", []), ("B", [])]
    run = collected("a", thumbnails, *answers * 3)
    head = make_head(run.chart_run(), run.file)
    assert (head["key"], head["dataset"], head["total"], head["correct"], head["accuracy"]) == ("own", "", 12, 6, 0.5)
    assert (head["answered"], head["empty"], head["rounds"], head["tokens"]) == (9, 3, 2, 650)
    assert head["interval"] == run.file.score.interval_95 is not None
    few = collected("b", thumbnails, *answers)
    assert make_head(few.chart_run(), few.file)["interval"] is None
    assert (head["so_far"], head["bounds"], head["published"], head["settings"]) == (None, None, [], [])


def test_the_figures_of_a_comparison_are_now_minus_before(thumbnails: ThumbnailBlocks) -> None:
    before = collected("a", thumbnails, ("B", []), ("A", []), ("A", []), ("B", []))
    now = collected("b", thumbnails, ("B", []), ("B", []), ("B", []), ("C", []))
    pairs: Any = comparison_figures(before.file, now.file, ("a", "b"))["figures"]
    figures = dict(pairs)
    assert figures["Accuracy"].startswith("50.00 % in a, 75.00 % in b, difference +25.00 points")
    assert (figures["Right only in a"], figures["Right only in b"]) == ("1", "2")
    assert figures["Total tokens"].startswith("250.0000 in a, 250.0000 in b")
