"""Reply parsing against the protocol's section 3, restated letter by letter without regular expressions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostile_replies import FIVE_MB, GOOD, HOSTILE, parsing_s
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eva.protocol.reply import Answer, Calls, Stop, find_answer, parse_reply

# --- the protocol, restated


def between(text: str, opening: str, closing: str) -> str | None:
    """What stands between the first `opening` that is closed, and the nearest `closing` after it."""
    start = text.find(opening)
    if start < 0:
        return None
    end = text.find(closing, start + len(opening))
    return None if end < 0 else text[start + len(opening) : end]


def is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def bare_answer_at(text: str, at: int) -> str:
    """The letter of `Answer: B` whose word ends before `at`, or nothing."""
    ends = {len(text), len(text) - 1 if text.endswith("\n") else len(text)}
    if at >= len(text) or not (text[at] in ".:" or text[at].isspace()):
        return ""
    letter = skip_space(text, at + 1)
    if letter >= len(text) or not is_word(text[letter]):
        return ""
    after = letter + 1
    if after in ends:
        return text[letter]
    if is_word(text[after]):
        return ""
    return text[letter] if any(0 <= end - (after + 1) <= 100 for end in ends) else ""


def owed_answer(text: str) -> str:
    tagged = between(text, "<answer>", "</answer>")
    if tagged is not None and tagged.strip():
        return tagged.strip()
    for at in range(len(text)):
        if text[at : at + 6] in ("Answer", "answer"):
            found = bare_answer_at(text, at + 6)
            if found:
                return found
    return ""


def literals(text: str, at: int, *pieces: str) -> int:
    """Where `pieces`, one after the other from `at`, end; " " is optional white space; -1: they are not there."""
    for piece in pieces:
        if piece == " ":
            at = skip_space(text, at)
        elif text.startswith(piece, at):
            at += len(piece)
        else:
            return -1
    return at


def owed_inner_objects(block: str) -> list[str]:
    found, at = [], 0
    while at < len(block):
        heads = (
            literals(block, at, "{", " ", '"tool":', " ", '"frame_select",', " ", f'"{key}":', " ", "{")
            for key in ("arguments", "parameters")
        )
        start = max(heads)
        end = closing_pair(block, start) if start >= 0 else None
        if end is None:
            at += 1
        else:
            found.append(block[start - 1 : end[0]])
            at = end[1]
    return found


def closing_pair(block: str, at: int) -> tuple[int, int] | None:
    """(end of the inner object, end of the call): the first `}`, white space, `}` from `at`."""
    while (at := block.find("}", at)) >= 0:
        outer = skip_space(block, at + 1)
        if block.startswith("}", outer):
            return at + 1, outer + 1
        at += 1
    return None


def owed_arguments(inner: str) -> tuple[dict[str, Any] | None, str | None]:
    try:
        arguments = json.loads(inner)
    except ValueError:
        return None, "arguments_not_json"
    if "start_time" not in arguments or "end_time" not in arguments:
        return arguments, "no_start_or_end_time"
    return arguments, None if "nframes" in arguments else "no_nframes"


def owed_reply(text: str) -> tuple[str, Any]:
    answer = owed_answer(text)
    if answer:
        return "answer", answer
    block = between(text, "<tool_call>", "</tool_call>")
    if block is None:
        return "stop", "no_answer_no_tool_call"
    inner = owed_inner_objects(block)
    return ("calls", [owed_arguments(one) for one in inner]) if inner else ("stop", "no_valid_tool_call")


def got_reply(text: str) -> tuple[str, Any]:
    match parse_reply(text):
        case Answer(answer):
            return "answer", answer
        case Stop(stop_reason):
            return "stop", stop_reason
        case Calls(attempts):
            # What stands in the arguments of a failed call is nobody's business; its error is.
            return "calls", [(None if call.error else call.arguments, call.error) for call in attempts]
    raise AssertionError("parse_reply returned something else")


def owed_without_failed_arguments(text: str) -> tuple[str, Any]:
    kind, value = owed_reply(text)
    if kind == "calls":
        value = [(None if error else arguments, error) for arguments, error in value]
    return kind, value


# --- property tests

PIECES = [
    "<answer>", "</answer>", "<tool_call>",
    "</tool_call>", "Answer", "answer", "ANSWER", "B", "C", "_", "é", "\uff13", ".",
    ":", " ", "  ", "\n", "\t", "\u00a0", "\u2028", ")", "{", "}", "}}", "[", '"', ",", '"tool":', '"tool" :',
    '"frame_select",', '"frame_select" ,', '"arguments":', '"parameters":', "NaN",
    '{"start_time": 1, "end_time": 2, "nframes": 3}',
    '{"tool": "frame_select", "arguments": {', '"start_time": 0', '"end_time": null', '"nframes": 4', "NaN", "x" * 99,
    '{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 5, "nframes": 4}}',
    '{"tool": "frame_select", "parameters": {"end_time": 5, "nframes": 4}}',
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=14).map("".join)
tails = st.one_of(st.integers(95, 105).map(lambda n: ")" + "x" * n), st.text(max_size=4))


@given(texts)
@example("<answer></answer><answer>B</answer>")
@example("<answer> </answer> Answer: C")
@example("<answer>A")
@example("</answer><answer>A</answer>")
@example("Answer.: B")
@example("Answer: BC")
@example("The best answer is clear")
@settings(max_examples=400)
def test_the_answer_is_the_one_the_protocol_describes(text: str) -> None:
    assert find_answer(text) == owed_answer(text)


@given(st.sampled_from(["Answer", "answer"]), st.sampled_from(".: \n\t,;"), st.text(" \n", max_size=2), tails)
@settings(max_examples=300)
def test_a_bare_answer_may_be_followed_by_one_non_word_and_100_characters(
    word: str, mark: str, gap: str, tail: str
) -> None:
    for text in (f"{word}{mark}{gap}B{tail}", f"{word}{mark}{gap}B{tail}\n", f"{word}: {word}{mark}{gap}B{tail}"):
        assert find_answer(text) == owed_answer(text)


@given(texts)
@settings(max_examples=400)
def test_a_reply_is_an_answer_or_calls_or_a_stop_reason_as_the_protocol_says(text: str) -> None:
    assert got_reply(text) == owed_without_failed_arguments(text)


@given(texts)
@settings(max_examples=300)
def test_the_calls_of_a_block_are_the_ones_the_protocol_finds(inside: str) -> None:
    text = f"<tool_call>{inside}</tool_call>"
    assert got_reply(text) == owed_without_failed_arguments(text)


# --- the rules by hand


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>B</answer>", "B"),
        ("<answer>\n B. two \n</answer>", "B. two"),
        ("<answer>A</answer> or <answer>B</answer>", "A"),
        ("<answer>A<answer>B</answer>", "A<answer>B"),
        ("<answer></answer>", ""),
        ("<answer> \n</answer> <answer>B</answer>", ""),
        ("<answer></answer> Answer: C", "C"),
        ("<Answer>B</Answer>", ""),
        ("Answer: B", "B"),
        ("answer.B", "B"),
        ("Answer B", "B"),
        ("Answer\nB", "B"),
        ("Answer:\n\n  B", "B"),
        ("Answer:: B", ""),
        ("Answer - B", ""),
        ("AnswerB", ""),
        ("ANSWER: B", ""),
        ("Answer: (B)", ""),
        ("Answer: B.", "B"),
        ("Answer: B\n", "B"),
        ("Answer: B, because", "B"),
        ("Answer: Because", ""),
        ("Answer: é", "é"),
        ("Answer: ٣", "٣"),
        ("Answer: _", "_"),
        ("Answer: B" + ")" + "x" * 100, "B"),
        ("Answer: B" + ")" + "x" * 101, ""),
        ("Answer: B" + ")" + "x" * 100 + "\n", "B"),
        ("Answer: B" + ")" + "x" * 100 + "\n\n", ""),
        ("Answer: B" + "\n" * 102, "B"),
        ("Answer: B" + "\n" * 103, ""),
        ("Answer: A)" + "x" * 90 + " Answer: B", "A"),
        ("Answer: A)" + "x" * 91 + " Answer: B", "B"),
        ("Answer: A) or Answer: B", "A"),
        ("Answer: A) " + "x" * 200 + " Answer: B", "B"),
        ("the answer is B", ""),
        ("the answer i", "i"),
        ("", ""),
    ],
)  # fmt: skip
def test_find_answer(text: str, answer: str) -> None:
    assert find_answer(text) == answer
    assert owed_answer(text) == answer, "the restatement and the table disagree"


@pytest.mark.parametrize(
    ("text", "owed"),
    [
        (f"<tool_call>{GOOD}</tool_call><answer>B</answer>", ("answer", "B")),
        *((text, ("stop", "no_answer_no_tool_call")) for text in (
            "", "Hm.", f"<tool_call>{GOOD}", f"{GOOD}</tool_call>", f"<TOOL_CALL>{GOOD}</TOOL_CALL>",
        )),
        (f"<tool_call></tool_call><tool_call>{GOOD}</tool_call>", ("stop", "no_valid_tool_call")),
    ],
)  # fmt: skip
def test_an_answer_wins_and_only_the_first_closed_block_counts(text: str, owed: tuple[str, str]) -> None:
    assert got_reply(text) == owed


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "{}",
        GOOD.replace("frame_select", "frame_pick"),
        GOOD.replace('"tool"', '"name"'),
        GOOD.replace('"tool":', '"tool" :'),
        GOOD.replace('"frame_select",', '"frame_select" ,'),
        GOOD.replace('"arguments":', '"arguments" :'),
        GOOD.replace("arguments", "args"),
        GOOD[:-1],
        '{"arguments": {"start_time": 0, "end_time": 5, "nframes": 4}, "tool": "frame_select"}',
        '{"id": 1, "tool": "frame_select", "arguments": {"start_time": 0, "end_time": 5, "nframes": 4}}',
        '{"tool": "frame_select", "arguments": [0, 5, 4]}',
        '{"tool": "frame_select", "arguments": "{}"}',
        GOOD.replace('"', "'"),
    ],
)
def test_a_block_without_a_call_in_the_trained_form_is_no_valid_tool_call(inside: str) -> None:
    text = f"<tool_call>{inside}</tool_call>"
    assert got_reply(text) == ("stop", "no_valid_tool_call")
    assert owed_reply(text) == ("stop", "no_valid_tool_call"), "the restatement and the table disagree"


@pytest.mark.parametrize(
    ("inner", "error"),
    [
        ('{"start_time": 0, "end_time": 5, nframes: 4}', "arguments_not_json"),
        ("{'start_time': 0}", "arguments_not_json"),
        ('{"start_time": 0, "extra": {"a": 1}}', "arguments_not_json"),
        ("{}", "no_start_or_end_time"),
        ('{"end_time": 5, "nframes": 4}', "no_start_or_end_time"),
        ('{"start_time": 5, "nframes": 4}', "no_start_or_end_time"),
        ('{"start_time": 0, "end_time": 5}', "no_nframes"),
        ('{"start_time": 0, "end_time": null, "nframes": null}', None),
        ('{"start_time": NaN, "end_time": Infinity, "nframes": "many"}', None),
    ],
)
def test_what_a_call_lacks_is_its_error(inner: str, error: str | None) -> None:
    text = f'<tool_call>{{"tool": "frame_select", "arguments": {inner}}}</tool_call>'
    kind, calls = got_reply(text)
    assert (kind, [call[1] for call in calls]) == ("calls", [error])


# --- hostile texts


@pytest.mark.parametrize("name", HOSTILE)
def test_five_megabytes_of_hostile_reply_are_an_answer_calls_or_nothing(name: str) -> None:
    assert isinstance(parse_reply(HOSTILE[name](FIVE_MB)), Answer | Calls | Stop)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_eight_times_as_long_costs_about_eight_times_as_much(name: str) -> None:
    """A step for each pair of characters would cost 64 times as much. Each figure is the least of five."""
    short, long = (HOSTILE[name](length) for length in (16_000, 128_000))
    short_s, long_s = (min(parsing_s(text) for _ in range(5)) for text in (short, long))
    assert long_s < 32 * max(short_s, 0.0005)


@pytest.mark.parametrize("name", ["deep lists", "deep objects", "a huge integer"])
def test_json_that_python_cannot_hold_is_an_error_of_the_call(name: str) -> None:
    kind, calls = got_reply(HOSTILE[name](FIVE_MB))
    assert kind == "calls"
    assert [error for _, error in calls] == ["arguments_not_json"]


def test_json_that_only_some_versions_of_python_can_read_is_an_error_of_the_call() -> None:
    for levels, error in ((199, None), (200, "arguments_not_json"), (3000, "arguments_not_json")):
        nested = f'{{"start_time": {"[" * levels}{"]" * levels}, "end_time": 1, "nframes": 2}}'
        _, calls = got_reply(f'<tool_call>{{"tool": "frame_select", "arguments": {nested}}}</tool_call>')
        assert [found for _, found in calls] == [error]
