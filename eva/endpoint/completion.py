"""One completion: its sampling settings, its reply, and the smallest prompt with an image. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from eva.endpoint.errors import UnavailableError
from eva.json_text import items, json_text, mapping, number
from eva.protocol.messages import Message
from eva.protocol.reply import Usage

TEMPERATURE = 0.0
MAX_TOKENS = 2048
# How a completion ends: in OpenAI's words, in those of other servers (TGI, Mistral), and in vLLM's for a text that
# repeats itself. With any other reason, such as vLLM's "abort", the server broke the reply off.
FINISHED = frozenset(
    {"stop", "length", "tool_calls", "function_call", "content_filter"}
    | {"eos_token", "stop_sequence", "model_length", "repetition"}
)
# A request without further fields.
NOTHING: Mapping[str, Any] = MappingProxyType({})
# A black PNG image of 28 x 28 pixels: one visual token.
BLACK_PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAIAAAD9b0jDAAAAGUlEQVRIx+3BMQEAAADCoPVPbQdvoAAAeA0JTAABzgq7NAAAAABJRU5ErkJggg=="
)
BLACK_IMAGE_URL = f"data:image/png;base64,{BLACK_PNG_BASE64}"


@dataclass(frozen=True)
class Sampling:
    """What the requests of a run have in common. Without a seed none is sent.

    `extra` are fields that are added to the body; null takes a field out.
    """

    max_tokens: int = MAX_TOKENS
    temperature: float = TEMPERATURE
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of the body, but for the limit of tokens. A seed of None is not sent."""
        return {"temperature": self.temperature, "seed": self.seed, **self.extra}

    @property
    def changed(self) -> dict[str, Any]:
        """What is not as in the published figures."""
        usual, now = Sampling(), vars(self)
        changed = {name: now[name] for name in ("max_tokens", "temperature", "seed") if now[name] != vars(usual)[name]}
        return {**changed, "extra_body": self.extra} if self.extra else changed


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
    """The reply in the JSON of a chat completion. Raises UnavailableError if it is not a chat completion, or not a
    whole one."""
    # The JSON of a failing server or proxy may lack any field.
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        said, reason = _joined(message.get("content")), choice.get("finish_reason")
    except (AttributeError, LookupError, TypeError):
        shown = json.dumps(completion, ensure_ascii=False)[:200]
        raise UnavailableError(f"the server's reply is not a chat completion: {shown!r}") from None
    calls = tuple(map(_native_call, items(message.get("tool_calls"))))
    # Some servers never name a reason. Then only a reply that says nothing is surely not a whole one.
    finished = bool(said or calls) if reason is None else str(reason) in FINISHED
    if not finished:
        raise UnavailableError(f"the server broke its reply off (finish_reason {str(reason)[:40]!r})")
    thought = _text(message.get("reasoning_content") or message.get("reasoning"))
    return Reply(said, _usage(completion.get("usage")), reason, calls=calls, reasoning=thought)


def _joined(content: Any) -> str:
    """A text, or the texts of a list of parts. Raises TypeError and AttributeError for what is neither."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError("the content is not a text")
    return "".join(part if isinstance(part, str) else _text(part.get("text")) for part in content)


def _usage(usage: object) -> Usage:
    def count(value: object) -> int | None:
        found = number(value)
        return None if found is None or found < 0 else int(found)

    said = mapping(usage)
    asked, replied, both = (count(said.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    return Usage(asked, replied, both, count(mapping(said.get("prompt_tokens_details")).get("cached_tokens")))


def _native_call(value: object) -> NativeCall:
    call = mapping(value)
    function = mapping(call.get("function"))
    try:
        arguments = json_text(function.get("arguments"))  # some servers give the object itself
    except RecursionError:
        arguments = ""
    return NativeCall(_text(call.get("id")), _text(function.get("name")), arguments)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def image_message(url: str, *, asking: str = ".", count: int = 1) -> Message:
    """A user message with one image, `count` times."""
    image = {"type": "image_url", "image_url": {"url": url}}
    return {"role": "user", "content": [{"type": "text", "text": asking}, *[image] * count]}


def has_images(messages: Sequence[Message]) -> bool:
    """Whether any of the messages has an image."""
    parts = (part for message in messages for part in items(message.get("content")))
    return any(mapping(part).get("type") == "image_url" for part in parts)
