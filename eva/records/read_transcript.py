"""A conversation as text -> what the records of the reference, and our older ones, do not say by themselves. Pure."""

from __future__ import annotations

import re

from eva.protocol.messages import RESPONSE_END, TURN_END, TURN_START, USER_PROMPT

_BEFORE_QUESTION, _, _ = USER_PROMPT.partition("{question}")
_OPENING = re.compile(
    re.escape(_BEFORE_QUESTION).replace(r"\{length\}", r"(\d{1,9})").replace(r"\{resolution\}", r"(\d{1,9})")
)
_BEFORE_REPEATED, _, _AFTER_REPEATED = RESPONSE_END.partition("{question}")


def find_question(messages: str) -> str:
    """The question that was asked; empty where a sample ended before there was a conversation."""
    opening = _OPENING.search(messages)
    if opening is None:
        return ""
    text, ended, _ = messages[opening.end() :].partition(TURN_END)
    if not ended:  # another chat template; a tool response repeats the question
        _, repeated, rest = text.partition(_BEFORE_REPEATED)
        text = rest.partition(_AFTER_REPEATED)[0] if repeated else text
    return text.strip()


def find_video_length_s(messages: str) -> float | None:
    """The whole seconds that the opening message names."""
    opening = _OPENING.search(messages)
    return float(opening[1]) if opening else None


def find_resolution(messages: str) -> int | None:
    """The shorter side of the video in pixels, as the opening message names it."""
    opening = _OPENING.search(messages)
    return int(opening[2]) if opening else None


def find_replies(messages: str) -> list[str]:
    """The assistant turns of a ChatML conversation, verbatim."""
    turns = (part.partition("\n") for part in messages.split(TURN_START)[1:])
    return [text[: text.rfind(TURN_END)] for role, _, text in turns if role == "assistant" and TURN_END in text]
