"""Opening messages, tool responses and time stamps against the protocol's sections 2 and 3."""

from __future__ import annotations

from typing import Any

import pytest
import restated
from hypothesis import example, given
from hypothesis import strategies as st

from eva.errors import EvaError
from eva.protocol.messages import Frame, VideoInfo, opening_messages, requested_times, tool_response

CLIP = VideoInfo(duration_s=42.0, width=640, height=360)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def opened(*turns: dict[str, str], video: VideoInfo = CLIP) -> list[dict[str, Any]]:
    return [dict(message) for message in opening_messages(turns, video).messages]


def test_the_system_message_is_the_one_the_model_was_trained_on_typo_included() -> None:
    assert opened(turn("user", "Q?")) == [
        turn("system", "Use Frame Select Tool to Anlysis the video and generate an answer to the question."),
        turn("user", "Video Length: 41 seconds. Original video resolution: 360p. Q?"),
    ]


def test_a_system_turn_of_the_item_stays_and_no_other_comes() -> None:
    assert opened(turn("system", "Be careful."), turn("user", "Q?"))[0] == turn("system", "Be careful.")
    assert len(opened(turn("system", ""), turn("user", "Q?"))) == 2


def test_only_the_first_user_turn_gets_the_video_line_and_only_a_first_turn_is_the_systems() -> None:
    later = [turn("assistant", "hm"), turn("user", " two "), turn("system", "late")]
    messages = opened(turn("user", "one"), *later)
    assert messages[0] == turn("system", restated.SYSTEM)
    assert messages[1]["content"].endswith("360p. one")
    assert messages[2:] == later


@pytest.mark.parametrize("turns", [(), (turn("system", "s"),), (turn("assistant", "a"),)])
def test_a_prompt_without_a_user_turn_is_an_error_of_that_sample(turns: tuple[dict[str, str], ...]) -> None:
    with pytest.raises(EvaError, match="user"):
        opening_messages(turns, CLIP)


def test_the_question_is_stripped_at_its_ends_and_nowhere_else() -> None:
    opening = opening_messages([turn("user", "\n Q?\n\n A. one  \\n(B) two \t\n")], CLIP)
    assert opening.question == "Q?\n\n A. one  \\n(B) two"
    assert opening.messages[1]["content"].endswith("360p. Q?\n\n A. one  \\n(B) two")


@pytest.mark.parametrize("text", ["{length} {0} {}", "%s %(x)s", "\\n literal", "<|im_end|>", "\u3000wide", "🎬"])
def test_a_question_is_sent_byte_for_byte(text: str) -> None:
    question = f"x{text}x"
    assert opened(turn("user", question))[1]["content"].endswith(f"360p. {question}")
    last = tool_response([], question)["content"][-1]["text"]
    assert last.endswith(f"\n\nQuestion: {question}</tool_response>")


@pytest.mark.parametrize(
    ("duration_s", "length"),
    [(42.0, 41), (42.49, 41), (42.5, 42), (1.5, 1), (1.0, 1), (0.04, 1), (0.0, 1), (2.49, 1), (2.5, 2), (7200.9, 7200)],
)
def test_the_length_is_the_whole_seconds_of_duration_less_a_half_and_at_least_1(duration_s: float, length: int) -> None:
    video = VideoInfo(duration_s=duration_s, width=640, height=360)
    assert opened(turn("user", "Q"), video=video)[1]["content"].startswith(f"Video Length: {length} seconds. ")


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1080, 1920)])
def test_the_resolution_is_the_shorter_side(width: int, height: int) -> None:
    video = VideoInfo(duration_s=9.0, width=width, height=height)
    assert "resolution: 1080p. Q" in opened(turn("user", "Q"), video=video)[1]["content"]


# --- time stamps


def labels(times: list[int]) -> list[str]:
    parts = tool_response([Frame(at, "file:///x.png") for at in times], "Q")["content"]
    return [part["text"].split("[")[1].split("]")[0] for part in parts[1:-1] if part["type"] == "text"]


@pytest.mark.parametrize(
    ("seconds", "label"),
    [
        (0, "00:00"), (59, "00:59"), (60, "01:00"), (3600, "60:00"), (4507, "75:07"), (360061, "6001:01"),
        (-1, "-1:59"), (-60, "-1:00"), (-61, "-2:59"), (-600, "-10:00"),
    ],
)  # fmt: skip
def test_minutes_do_not_roll_over_and_negative_times_floor(seconds: int, label: str) -> None:
    assert labels([seconds]) == [label]
    assert restated.stamp(seconds) == label


def test_times_come_from_the_requested_window_cut_towards_zero() -> None:
    assert requested_times(0, 20, 8) == [0, 2, 5, 8, 11, 14, 17, 20]
    assert requested_times(-5, 10, 5) == [-5, -1, 2, 6, 10]
    assert requested_times(-0.9, 0.9, 2) == [0, 0]
    assert requested_times(20, 10, 5) == [20, 17, 15, 12, 10]
    assert (requested_times(3.25, 5.75, 5), requested_times(3, 5, 1), requested_times(3, 5, 0)) == (
        [3, 3, 4, 5, 5],
        [3],
        [],
    )


finite = st.floats(-1e7, 1e7, allow_nan=False)


@given(finite, finite, st.integers(0, 200))
@example(0.0, 0.1, 3)
@example(0.0, 20.0, 2)
def test_frame_k_of_n_is_at_start_plus_k_steps(start_s: float, end_s: float, count: int) -> None:
    assert labels(requested_times(start_s, end_s, count)) == restated.stamps(start_s, end_s, count)


# --- tool responses


@given(st.lists(st.integers(-100, 10000), max_size=6), st.text(max_size=20))
def test_a_tool_response_is_the_protocols_texts_and_images_in_order(times: list[int], question: str) -> None:
    shown = [Frame(at, f"file:///frames/{n}.png") for n, at in enumerate(times)]
    images = [{"type": "image_url", "image_url": {"url": frame.url}} for frame in shown]
    owed = restated.tool_message(
        [(restated.stamp(at), image) for at, image in zip(times, images, strict=True)], question
    )
    assert tool_response(shown, question) == owed


def test_the_first_frame_has_no_leading_newline_and_the_others_have_one() -> None:
    content = tool_response([Frame(0, "file:///a"), Frame(75 * 60 + 7, "file:///b")], "Why?")["content"]
    assert content == [
        {"type": "text", "text": "<tool_response>"},
        {"type": "text", "text": "Frame 0 at [00:00]: "},
        {"type": "image_url", "image_url": {"url": "file:///a"}},
        {"type": "text", "text": "\nFrame 1 at [75:07]: "},
        {"type": "image_url", "image_url": {"url": "file:///b"}},
        {
            "type": "text",
            "text": "\nIf more information is needed, call the frame selection tool again.\n\n"
            "Question: Why?</tool_response>",
        },
    ]
