"""One completion: its sampling settings, its reply, and the smallest prompt with an image. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from eva.endpoint.errors import UnavailableError
from eva.json_text import mapping
from eva.protocol.messages import Message

TEMPERATURE = 0.0
MAX_TOKENS = 2048
# A black PNG image of 28 x 28 pixels: one visual token.
BLACK_PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAIAAAD9b0jDAAAAGUlEQVRIx+3BMQEAAADCoPVPbQdvoAAAeA0JTAABzgq7NAAAAABJRU5ErkJggg=="
)
BLACK_IMAGE_URL = f"data:image/png;base64,{BLACK_PNG_BASE64}"


@dataclass(frozen=True)
class Usage:
    """The numbers of tokens of one completion. `cached_tokens` of the prompt were not computed again; None where the
    server does not say it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None = None


@dataclass(frozen=True)
class Reply:
    """One completion: its text (empty for a null content), its tokens, and how long the request took."""

    text: str
    usage: Usage
    finish_reason: str | None
    seconds: float = 0.0


def read_reply(completion: Any) -> Reply:
    """The reply in the JSON of a chat completion. Raises UnavailableError if it is not a chat completion."""
    # The JSON of a failing server or proxy may lack any field.
    try:
        choice, usage = completion["choices"][0], completion["usage"]
        asked, said, both = (int(usage[name]) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
        tokens = Usage(asked, said, both, _cached_tokens(usage))
        text, reason = choice["message"].get("content"), choice.get("finish_reason")
        if text is not None and not isinstance(text, str):
            raise TypeError("the content is not a text")
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        shown = json.dumps(completion, ensure_ascii=False)[:200]
        raise UnavailableError(f"the server's reply is not a chat completion: {shown!r}") from None
    return Reply(text or "", tokens, reason if isinstance(reason, str) else None)


def _cached_tokens(usage: Any) -> int | None:
    cached = mapping(usage.get("prompt_tokens_details")).get("cached_tokens")
    return cached if type(cached) is int and cached >= 0 else None


def image_message(url: str, *, count: int = 1) -> Message:
    """A user message with one image, `count` times."""
    image = {"type": "image_url", "image_url": {"url": url}}
    return {"role": "user", "content": [{"type": "text", "text": "."}, *[image] * count]}
