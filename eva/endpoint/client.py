"""Chat calls to an OpenAI-compatible server: what is sent, what is retried and what is not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import httpx2
import openai

from eva.endpoint.errors import BadRequestError, ServerError, UnavailableError
from eva.endpoint.http_client import BoundedClient, UnusableServerError, shown_address
from eva.protocol.messages import Message

TEMPERATURE = 0.0
MAX_TOKENS = 2048
PROBE_TIMEOUT_S = 60.0
LISTING_TIMEOUT_S = 30.0
PROBE_PAUSE_S = 0.2
# A black image of 28 x 28 pixels, one visual token.
_PROBE_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAIAAAD9b0jDAAAAGUlEQVRIx+3BMQEAAADCoPVPbQdvoAAAeA0JTAABzgq7"
    "NAAAAABJRU5ErkJggg=="
)
_PROBE = {
    "role": "user",
    "content": [{"type": "text", "text": "."}, {"type": "image_url", "image_url": {"url": _PROBE_IMAGE}}],
}
# Statuses below 500 by which a server says that it cannot serve just now: a key that no longer counts, no model
# (404), slow, busy.
_UNAVAILABLE_STATUS = frozenset({401, 403, 404, 408, 409, 425, 429})
_BUSY = 429


# What the client raises where a request brings no completion: JSON that is none is a ValueError, JSON without a bottom
# a RecursionError.
NO_COMPLETION = (openai.APIError, ValueError, RecursionError)


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Reply:
    """One completion: its text (empty for a null content), token usage, wall seconds with retries."""

    text: str
    usage: Usage
    finish_reason: str | None
    seconds: float = 0.0


@dataclass(frozen=True)
class ChatModel:
    """A model behind a client. Sampling is fixed to what the published figures were measured with."""

    client: openai.AsyncOpenAI
    name: str

    @property
    def base_url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @property
    def address(self) -> str:
        """The base URL as people and files may see it: without a password."""
        return shown_address(self.client.base_url)

    async def complete(self, messages: Sequence[Message]) -> Reply:
        """Ask once for the next message. Raises BadRequestError (HTTP 400), UnavailableError, or
        openai.APIStatusError for other refusals."""
        started = time.monotonic()
        try:
            reply = _read(await self._create(messages, MAX_TOKENS, None))
        except openai.BadRequestError as error:
            raise BadRequestError(error.message) from error
        except NO_COMPLETION as error:
            raise unavailable(error) or error from error
        return replace(reply, seconds=round(time.monotonic() - started, 3))

    async def probe(self) -> str:
        """Why the server cannot serve, or the empty text: it lists the model, and completes a tiny image prompt.

        Its health page is not asked: that answers 200 on a server that can no longer complete anything.
        """
        failure = await self._probe()
        # Behind a 500, vLLM closes the connection without saying so: the first request that meets that tells nothing.
        if failure is not None and failure.unconnected:
            await asyncio.sleep(PROBE_PAUSE_S)
            failure = await self._probe()
        return str(failure or "")

    async def _probe(self) -> UnavailableError | None:
        try:
            served = await _served(self.client)
            if self.name not in served:
                return UnavailableError(f"it serves {', '.join(served) or 'no model'}, not {self.name}")
            _read(await self._create([_PROBE], 1, _at_most(PROBE_TIMEOUT_S, self.client)))
        except UnavailableError as failure:
            return failure
        except NO_COMPLETION as error:
            # A server that lists the model and refuses the probe's image serves: not every model takes one.
            return unavailable(error)
        return None

    async def context_length(self) -> int | None:
        """The model's context in tokens, where the server says it (vLLM does). Raises ServerError."""
        return (await _checked_models(self.client)).get(self.name)

    async def try_out(self, messages: Sequence[Message]) -> str:
        """Have one token completed; why that failed, or the empty text."""
        try:
            _read(await self._create(messages, 1, _at_most(PROBE_TIMEOUT_S, self.client)))
        except (UnavailableError, *NO_COMPLETION) as error:
            return str(error)
        return ""

    async def _create(self, messages: Sequence[Message], max_tokens: int, timeout_s: float | None) -> object:
        """The JSON of a completion, read here: the client's own types take a minute for some megabytes of nonsense."""
        try:
            return await self._post(messages, max_tokens, timeout_s)
        except UnicodeEncodeError:
            return await self._post(without_surrogates(messages), max_tokens, timeout_s)

    async def _post(self, messages: Sequence[Message], max_tokens: int, timeout_s: float | None) -> object:
        body = {"messages": messages, "model": self.name, "max_tokens": max_tokens, "temperature": TEMPERATURE}
        options: Any = {} if timeout_s is None else {"timeout": timeout_s}
        reply = await self.client.post("/chat/completions", cast_to=httpx2.Response, body=body, options=options)
        return json.loads(reply.content)


def without_surrogates(messages: Sequence[Message]) -> list[Message]:
    """The messages as UTF-8 can carry them: a lone surrogate, which a reply may hold as a JSON escape, becomes `?`."""
    text = json.dumps(messages, ensure_ascii=False).encode("utf-8", errors="replace")
    return cast(list[Message], json.loads(text))


def unavailable(error: Exception) -> UnavailableError | None:
    """What the error says of the server, or None if it says that the request is at fault."""
    name = type(error).__name__
    if isinstance(error, openai.APITimeoutError):
        return UnavailableError(f"{name}: {error.message}", overload=True, timeout=True)
    if isinstance(error, openai.APIStatusError):
        if error.status_code < 500 and error.status_code not in _UNAVAILABLE_STATUS:
            return None
        overload = error.status_code >= 500 or error.status_code == _BUSY
        return UnavailableError(f"{name}: {error.message}", overload=overload)
    if isinstance(error, UnusableServerError):
        return UnavailableError(error.message)
    return UnavailableError(f"{name}: {error}", unconnected=isinstance(error, openai.APIConnectionError))


def _read(completion: Any) -> Reply:
    # What a failing server or proxy sends may lack any field.
    try:
        choice, usage = completion["choices"][0], completion["usage"]
        counts = Usage(*(int(usage[name]) for name in ("prompt_tokens", "completion_tokens", "total_tokens")))
        text, reason = choice["message"].get("content"), choice.get("finish_reason")
        if text is not None and not isinstance(text, str):
            raise TypeError("the content is no text")
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        shown = json.dumps(completion, ensure_ascii=False)[:200]
        raise UnavailableError(f"the server's reply is no chat completion: {shown!r}") from None
    return Reply(text or "", counts, reason if isinstance(reason, str) else None)


async def connect(*, base_url: str, api_key: str, model: str | None, timeout_s: float) -> ChatModel:
    """A model on the server at `base_url`: the one named, else the first that it lists.

    Raises ServerError if nothing answers there, or nothing that lists models.
    """
    client = make_client(base_url, api_key, timeout_s)
    served = await _checked_models(client)
    address = shown_address(client.base_url)
    if not served:
        raise ServerError(f"the server at {address} serves no model: start vLLM with the model's folder")
    if model is not None and model not in served:
        raise ServerError(f"the server at {address} does not serve {model!r} but {', '.join(served)}: see --model")
    return ChatModel(client, model or next(iter(served)))


def make_client(base_url: str, api_key: str, timeout_s: float) -> openai.AsyncOpenAI:
    """A client that tries nothing again by itself: `pool` decides what is retried. Raises ServerError."""
    try:
        http = BoundedClient(headers={"Accept-Encoding": "identity"})
        return openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=0, http_client=http
        )
    except httpx2.InvalidURL as error:
        # The address is not repeated: what makes it invalid may be its password.
        raise ServerError("--base-url has an address that is not valid (special characters: as %40)") from error
    except OSError as error:
        raise ServerError(
            f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: {error}"
        ) from error


async def _checked_models(client: openai.AsyncOpenAI) -> dict[str, int | None]:
    address = shown_address(client.base_url)
    try:
        return await _served(client)
    except UnusableServerError as error:
        raise ServerError(f"the server at {address} cannot be used: {error.message}") from error
    except openai.APIConnectionError as error:
        raise ServerError(f"no server answers at {address}: start vLLM, or name its address with --base-url") from error
    except openai.APIStatusError as error:
        raise ServerError(f"the server at {address} refuses to list its models: {error.message}") from error
    except NO_COMPLETION as error:
        raise ServerError(f"what answers at {address} is no OpenAI-compatible server (is /v1 missing?)") from error


async def _served(client: openai.AsyncOpenAI) -> dict[str, int | None]:
    """Model names in the server's order, with their context in tokens where it is told."""
    timeout: Any = {"timeout": _at_most(LISTING_TIMEOUT_S, client)}
    listing = json.loads((await client.get("/models", cast_to=httpx2.Response, options=timeout)).content)
    try:
        return {str(model["id"]): _context(model.get("max_model_len")) for model in listing["data"]}
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("this is no list of models") from error


def _context(length: object) -> int | None:
    return length if isinstance(length, int) else None


def _at_most(seconds: float, client: openai.AsyncOpenAI) -> float:
    """Who gives a request less time than a probe may take gives the probe no more."""
    return min(seconds, client.timeout) if isinstance(client.timeout, (int, float)) else seconds
