"""One completion: its sampling settings, its reply, and the smallest prompt with an image. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from eva.endpoint.errors import UnavailableError
from eva.json_text import items, json_text, mapping
from eva.protocol.messages import Message

TEMPERATURE = 0.0
MAX_TOKENS = 2048
# A request without further fields.
NOTHING: Mapping[str, Any] = MappingProxyType({})
# A black PNG image of 28 x 28 pixels: one visual token.
BLACK_PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAIAAAD9b0jDAAAAGUlEQVRIx+3BMQEAAADCoPVPbQdvoAAAeA0JTAABzgq7NAAAAABJRU5ErkJggg=="
)
BLACK_IMAGE_URL = f"data:image/png;base64,{BLACK_PNG_BASE64}"


@dataclass(frozen=True)
class Usage:
    """The numbers of tokens of one completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Sampling:
    """What the requests of a run have in common; `extra` are fields that are added to the body, null takes one out."""

    max_tokens: int = MAX_TOKENS
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NativeCall:
    """A call of OpenAI's function calling. `arguments` is the text that the model wrote; empty for what is none."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """One completion: its text (empty for a null content), its tokens, and how long the request took.

    `calls` are its native tool calls, `reasoning` what the server took out of the text as reasoning.
    """

    text: str
    usage: Usage
    finish_reason: str | None
    seconds: float = 0.0
    calls: tuple[NativeCall, ...] = ()
    reasoning: str = ""


def read_reply(completion: Any) -> Reply:
    """The reply in the JSON of a chat completion. Raises UnavailableError if it is not a chat completion."""
    # The JSON of a failing server or proxy may lack any field.
    try:
        choice, usage = completion["choices"][0], completion["usage"]
        message = choice["message"]
        counts = Usage(*(int(usage[name]) for name in ("prompt_tokens", "completion_tokens", "total_tokens")))
        said, reason = message.get("content"), choice.get("finish_reason")
        if said is not None and not isinstance(said, str):
            raise TypeError("the content is not a text")
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        shown = json.dumps(completion, ensure_ascii=False)[:200]
        raise UnavailableError(f"the server's reply is not a chat completion: {shown!r}") from None
    calls = tuple(map(_native_call, items(message.get("tool_calls"))))
    reason = reason if isinstance(reason, str) else None
    return Reply(said or "", counts, reason, calls=calls, reasoning=_reasoning(message))


def _native_call(value: object) -> NativeCall:
    call = mapping(value)
    function = mapping(call.get("function"))
    try:
        arguments = json_text(function.get("arguments"))  # some servers give the object itself
    except RecursionError:
        arguments = ""
    return NativeCall(_only_text(call.get("id")), _only_text(function.get("name")), arguments)


def _reasoning(message: Mapping[str, Any]) -> str:
    """Servers name it in one of two ways."""
    return _only_text(message.get("reasoning_content") or message.get("reasoning"))


def _only_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def image_message(url: str, *, count: int = 1) -> Message:
    """A user message with one image, `count` times."""
    image = {"type": "image_url", "image_url": {"url": url}}
    return {"role": "user", "content": [{"type": "text", "text": "."}, *[image] * count]}
