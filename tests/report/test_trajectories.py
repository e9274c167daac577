"""Where two courses of one sample part."""

from __future__ import annotations

from typing import Any

from eva.records.schema import read_record
from eva.report.trajectories import Step, first_difference, steps

CHATML = (
    "<|im_start|>system\nYou look.<|im_end|>\n<|im_start|>user\nWhat?<|im_end|>\n"
    "<|im_start|>assistant\nLook.<|im_end|>\n<|im_start|>tool\nframes<|im_end|>\n"
    "<|im_start|>assistant\n<answer>B</answer><|im_end|>\n"
)


def round_(reply: str, *indices: list[int], error: str | None = None) -> dict[str, Any]:
    calls = [{"executed": {"indices": found, "width": 56, "height": 28}, "error": error} for found in indices]
    return {"reply": reply, "calls": calls}


def steps_of(**fields: object) -> tuple[Step, ...]:
    return steps(read_record({"index": 0, **fields}))


def difference(ours: list[Any], theirs: list[Any]) -> int | None:
    return first_difference(steps_of(trajectory=ours), steps_of(trajectory=theirs))


def test_the_same_rounds_differ_nowhere() -> None:
    course = [round_("Look.", [1, 2]), round_("B")]
    assert difference(course, [round_("Look.", [1, 2]), round_("B")]) is None
    assert difference([], []) is None


def test_the_first_other_reply_is_the_first_difference() -> None:
    assert difference([round_("a"), round_("b"), round_("c")], [round_("a"), round_("B"), round_("C")]) == 1


def test_the_same_reply_with_other_frames_is_a_difference() -> None:
    assert difference([round_("a", [1, 2])], [round_("a", [1, 3])]) == 0
    assert difference([round_("a", [1], [2])], [round_("a", [1])]) == 0
    assert difference([round_("a", [1])], [round_("a", [1], error="call_frame_select_failed")]) == 0


def test_a_course_that_goes_on_differs_in_its_next_round() -> None:
    assert difference([round_("a")], [round_("a"), round_("b")]) == 1
    assert difference([round_("a"), round_("b")], [round_("a")]) == 1
    assert difference([], [round_("a")]) == 0


def test_seconds_and_tokens_are_no_difference() -> None:
    slow = {**round_("a"), "seconds": 9.0, "usage": {"total_tokens": 5}}
    assert difference([round_("a")], [slow]) is None


def test_a_transcript_stands_in_for_a_trajectory() -> None:
    old = steps_of(messages=CHATML)
    assert len(old) == 2
    assert first_difference(old, steps_of(trajectory=[round_("Look.\n", [1]), round_("<answer>B</answer>")])) is None
    assert first_difference(old, steps_of(trajectory=[round_("Look.", [1]), round_("<answer>C</answer>")])) == 1


def test_a_hostile_record_has_steps_all_the_same() -> None:
    for trajectory in (None, "x", [1, None, "x"], [{"reply": 7, "calls": 5}], [{"reply": "\ud800", "calls": [3, {}]}]):
        steps_of(trajectory=trajectory, messages=5)
    assert difference([{"reply": None, "calls": [{"executed": "x"}]}], [{"reply": "", "calls": [{}]}]) is None
