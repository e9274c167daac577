"""Reply text -> answer or tool calls (docs/protocol.md, section 3), in time linear in the reply's length. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eva.json_text import parse_json
from eva.protocol.stop_reasons import (
    ARGUMENTS_NOT_JSON,
    NO_ANSWER_NO_TOOL_CALL,
    NO_NFRAMES,
    NO_START_OR_END_TIME,
    NO_VALID_TOOL_CALL,
)

# The match ends before the answered character, which may begin the next "Answer" or "answer".
_SPOKEN_ANSWER = re.compile(r"[Aa]nswer[.:\s]\s*(?=(\w))")
_CALL_START = re.compile(r'\{\s*"tool":\s*"frame_select",\s*"(?:arguments|parameters)":\s*(?=\{)')
_CALL_END = re.compile(r"\}(?=\s*\})")
_WORD = re.compile(r"\w")
MAX_CHARACTERS_AFTER_ANSWER = 100


@dataclass(frozen=True)
class Usage:
    """The numbers of tokens of one completion, each None where the server does not say it. `cached_tokens` of the
    prompt were not computed again."""

    prompt_tokens: int | float | None
    completion_tokens: int | float | None
    total_tokens: int | float | None
    cached_tokens: int | float | None = None


@dataclass(frozen=True)
class Answer:
    """The reply answers, and the sample ends."""

    text: str


@dataclass(frozen=True)
class CallAttempt:
    """One call of the frame tool as the model wrote it. `arguments` is None where `raw` is not JSON.

    `error` is the call's part of the stop reason where it cannot run, and `reason` explains it. `id` is the server's
    name for a native call.
    """

    raw: str
    arguments: Mapping[str, Any] | None
    error: str | None
    reason: str | None = None
    id: str = ""

    @classmethod
    def of(cls, **arguments: Any) -> CallAttempt:
        """A call that an agent makes by itself."""
        return cls(json.dumps(arguments), arguments, None)


@dataclass(frozen=True)
class Calls:
    """The calls of the reply's first tool-call block, in order; at least one."""

    calls: tuple[CallAttempt, ...]


@dataclass(frozen=True)
class Stop:
    """The sample ends with this stop reason: the reply has neither an answer nor a call, or no call of it worked."""

    reason: str


Action = Answer | Calls | Stop


def parse_reply(text: str) -> Action:
    """What the reply asks for. A tool call beside an answer does not count."""
    answer = find_answer(text)
    if answer:
        return Answer(answer)
    block = _between(text, "<tool_call>", "</tool_call>")
    if block is None:
        return Stop(NO_ANSWER_NO_TOOL_CALL)
    calls = tuple(_parse_call(raw) for raw in _call_objects(block))
    return Calls(calls) if calls else Stop(NO_VALID_TOOL_CALL)


def find_answer(text: str) -> str:
    """The answer in a reply, or the empty text.

    The first `<answer>` block counts, without white space at its ends. Where it is absent or empty, the answer is the
    character that the reply names after "Answer" or "answer" close to its end.
    """
    tagged = _between(text, "<answer>", "</answer>")
    return (tagged or "").strip() or _spoken_answer(text)


def _between(text: str, start: str, end: str) -> str | None:
    _, opened, rest = text.partition(start)
    inside, closed, _ = rest.partition(end)
    return inside if opened and closed else None


def _spoken_answer(text: str) -> str:
    ends = (len(text), len(text) - 1) if text.endswith("\n") else (len(text),)
    # A match counts only if it reaches the last characters, and only white space makes a match long.
    reach = MAX_CHARACTERS_AFTER_ANSWER + len("x.\n")
    first = max(0, len(text[:-reach].rstrip()) - len("answer:"))
    for match in _SPOKEN_ANSWER.finditer(text, first):
        after = match.end() + 1
        if after in ends or (_is_near_end(after, ends) and not _WORD.match(text, after)):
            return match.group(1)
    return ""


def _is_near_end(after: int, ends: tuple[int, ...]) -> bool:
    return any(0 <= end - (after + 1) <= MAX_CHARACTERS_AFTER_ANSWER for end in ends)


def _call_objects(block: str) -> Iterator[str]:
    """The inner object of each call: from its `{` to the first `}` that another `}` follows.

    A nested object therefore ends it too early, and its text is then not JSON. The reference does the same.
    """
    position = 0
    while start := _CALL_START.search(block, position):
        end = _CALL_END.search(block, start.end())
        if end is None:
            return
        yield block[start.end() : end.end()]
        position = block.index("}", end.end()) + 1


def _parse_call(raw: str) -> CallAttempt:
    try:
        arguments = parse_json(raw)
    except ValueError:
        return CallAttempt(raw, None, ARGUMENTS_NOT_JSON)
    return CallAttempt(raw, arguments, find_missing(arguments))


def find_missing(arguments: Mapping[str, Any]) -> str | None:
    """The error of a call that lacks an argument."""
    if "start_time" not in arguments or "end_time" not in arguments:
        return NO_START_OR_END_TIME
    return None if "nframes" in arguments else NO_NFRAMES
