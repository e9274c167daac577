"""Chat calls to an OpenAI-compatible server: what is sent, what is retried and what is not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import openai
from openai.types.chat import ChatCompletion
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from eva.errors import EvaError
from eva.prompt import Message

TEMPERATURE = 0.0
MAX_TOKENS = 2048
# vLLM closes the connection after a 500 without saying so, so one retry is the least; with these the waits add up
# to some eight seconds.
MAX_ATTEMPTS = 5
_RETRIED_STATUS = frozenset({408, 409, 429})


class ServerError(EvaError):
    """The server cannot be used at all: nothing answers, or it serves no model."""


class BadRequest(EvaError):
    """The server refused the request itself (HTTP 400): too long, too many images, a file it may not read."""


class BrokenReply(EvaError):
    """The server answered 200 with something that is no chat completion."""


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

    async def complete(self, messages: Sequence[Message]) -> Reply:
        """Ask for the next message.

        Connection errors, timeouts, 5xx, 408, 409, 429 and broken replies are tried again, MAX_ATTEMPTS times in
        all; then the last error is raised as it is (openai.APIError or BrokenReply). Raises BadRequest on HTTP 400.
        """
        started = time.monotonic()
        retrying = AsyncRetrying(
            retry=retry_if_exception(is_transient),
            stop=stop_after_attempt(MAX_ATTEMPTS),
            wait=wait_exponential_jitter(initial=0.5, max=8, jitter=0.25),
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._ask, messages)
        except openai.BadRequestError as error:
            raise BadRequest(error.message) from error
        return replace(reply, seconds=round(time.monotonic() - started, 3))

    async def _ask(self, messages: Sequence[Message]) -> Reply:
        try:
            completion: object = await self.client.chat.completions.create(
                model=self.name,
                messages=cast(Any, list(messages)),
                temperature=TEMPERATURE,
                max_tokens=MAX_TOKENS,
            )
        except ValueError as error:
            raise BrokenReply(f"the server's reply is not JSON: {error}") from error
        return _read(completion)


def _read(completion: object) -> Reply:
    # The client checks no types: a field may be missing or of any kind.
    if not isinstance(completion, ChatCompletion) or not completion.choices or not completion.usage:
        raise BrokenReply(f"the server's reply is no chat completion: {str(completion)[:200]!r}")
    choice, usage = completion.choices[0], completion.usage
    return Reply(
        text=choice.message.content or "",
        usage=Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
        finish_reason=choice.finish_reason,
    )


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code >= 500 or error.status_code in _RETRIED_STATUS
    return isinstance(error, (openai.APIConnectionError, BrokenReply))


async def connect(*, base_url: str, api_key: str, model: str | None, timeout_s: float) -> ChatModel:
    """A model on the server at `base_url`: the one named, else the first that it lists.

    Raises ServerError if nothing answers there, or nothing that lists models.
    """
    client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=0)
    served = await _served_models(client, base_url)
    if not served:
        raise ServerError(f"the server at {base_url} serves no model: start vLLM with the model's folder")
    if model is not None and model not in served:
        raise ServerError(f"the server at {base_url} does not serve {model!r} but {', '.join(served)}: see --model")
    return ChatModel(client, model or served[0])


async def _served_models(client: openai.AsyncOpenAI, base_url: str) -> list[str]:
    try:
        listing = await client.models.list(timeout=30)
        return [model.id for model in listing.data]
    except openai.APIConnectionError as error:
        raise ServerError(
            f"no server answers at {base_url}: start vLLM, or name its address with --base-url"
        ) from error
    except openai.APIStatusError as error:
        raise ServerError(f"the server at {base_url} refuses to list its models: {error.message}") from error
    except (openai.APIError, ValueError, AttributeError, TypeError) as error:
        raise ServerError(f"what answers at {base_url} is no OpenAI-compatible server (is /v1 missing?)") from error
