"""Replies that a careless parser chokes on, at any length: what grows faster than the reply shows at a few of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from eva.protocol.reply import find_answer, parse_reply

FIVE_MB = 5_000_000
GOOD = '{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 5, "nframes": 4}}'
HEAD = '{"tool": "frame_select", "arguments": {'


def in_block(inner: str) -> str:
    return f"<tool_call>{inner}</tool_call>"


def calls_of(inner: str) -> str:
    return in_block('{"tool": "frame_select", "arguments": ' + inner + "}")


# By name, a function from a length in characters to a reply of about that length.
HOSTILE: dict[str, Callable[[int], str]] = {
    "open answer tags": lambda n: "<answer>" * (n // 8),
    "open call tags": lambda n: "<tool_call>" * (n // 11),
    "answer tags, then calls": lambda n: "<answer>" * (n // 16) + "<tool_call>" * (n // 22),
    "heads without an end": lambda n: in_block(HEAD * (n // len(HEAD))),
    "heads with one brace each": lambda n: in_block((HEAD + "} ") * (n // (len(HEAD) + 2))),
    "braces and blanks": lambda n: in_block(HEAD + ("}" + " " * 500) * (n // 501)),
    "one brace, blanks": lambda n: in_block(HEAD + "}" + " " * n),
    "an opening brace, blanks": lambda n: in_block(("{" + " " * 1000) * (n // 1001)),
    "blanks in each place": lambda n: in_block(("{ " + '"tool":' + " " * 2000) * (n // 2009)),
    "answer words": lambda n: "Answer: " * (n // 8),
    "answer, blanks": lambda n: "Answer" + " " * n,
    "answer, blanks, again": lambda n: ("answer " + "\n" * 1000) * (n // 1007),
    "answer with a long tail": lambda n: "Answer: B " + "x " * (n // 2),
    "a tail before each answer": lambda n: ("Answer: B) " + "x" * 120) * (n // 131),
    "many good calls": lambda n: in_block(GOOD * (n // len(GOOD) // 4)),
    "blanks alone": lambda n: " " * n,
    "closing tags": lambda n: "</answer></tool_call>" * (n // 21),
    "an answer of blanks": lambda n: "<answer>" + " " * n + "</answer>",
    "deep lists": lambda n: calls_of('{"start_time": ' + "[" * (n // 5) + "]" * (n // 5) + "}"),
    "deep objects": lambda n: calls_of('{"a":' * (n // 10) + "1" + "}" * (n // 10)),
    "a huge integer": lambda n: calls_of('{"start_time": ' + "9" * (n // 5) + ', "end_time": 1, "nframes": 1}'),
    "a huge exponent": lambda n: calls_of('{"start_time": 1e999999999, "end_time": 1, "nframes": 1}'),
    "null bytes": lambda n: "\0" * n,
    "lone surrogates": lambda n: "\ud800" * (n // 5) + "<answer>\udfff</answer>",
}  # fmt: skip


def parsing_s(text: str, *parsers: Callable[[str], object]) -> float:
    """The CPU seconds that a reply costs the parsers; without any, EVA's."""
    before = time.process_time()
    for parse in parsers or (find_answer, parse_reply):
        parse(text)
    return time.process_time() - before


def check_linear(name: str, parse: Callable[[str], object]) -> None:
    """A step for each pair of characters would cost 64 times as much. Each figure is the least of five."""
    short, long = (HOSTILE[name](length) for length in (16_000, 128_000))
    short_s, long_s = (min(parsing_s(text, parse) for _ in range(5)) for text in (short, long))
    assert long_s < 32 * max(short_s, 0.0005)
    parse(HOSTILE[name](FIVE_MB))
