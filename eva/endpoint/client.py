"""Chat requests to an OpenAI-compatible server: each is sent once, and a failure says whose it is.

Importing this module imports openai, which takes 0.3 s: a command that sends nothing does not import it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import httpx2
import openai

from eva.endpoint.completion import BLACK_IMAGE_URL, NOTHING, Reply, Sampling, has_images, image_message, read_reply
from eva.endpoint.errors import (
    BadRequestError,
    RankRefusedError,
    RefusesAllError,
    ServerError,
    UnavailableError,
    WeightsChangedError,
)
from eva.endpoint.http_client import BoundedClient, proxy_note, shown_address
from eva.protocol.messages import Message
from eva.text import printable

# For the list of models and every other page; for a request of one token.
PAGE_TIMEOUT_S, PROBE_TIMEOUT_S = 10.0, 60.0
# Of a stated path. Linux takes no longer one.
_MOST_CHARACTERS = 4096
# vLLM's header, and the word in its refusal of a rank that it does not have.
RANK_HEADER, RANK_REFUSED = "X-data-parallel-rank", "data_parallel_rank"
# Statuses below 500 by which a server says that it cannot serve now: the key is not valid any more, the model is not
# there (404), the server is slow or busy.
_UNAVAILABLE_STATUS = frozenset({401, 403, 404, 407, 408, 409, 425, 429})
_REFUSED, _BUSY, _BROKEN, _LOADING = 400, 429, 500, 503
# About 40 tokens: the opening of a sample has more.
SMALL_TEXT = "What is shown in this video? " * 5
# The field that limits the tokens of a reply, and its name on servers that refuse the first one.
MAX_TOKENS_NAME, NEW_MAX_TOKENS_NAME = "max_tokens", "max_completion_tokens"
# What the client raises where a request brings no completion. Text that is not JSON is a ValueError, JSON that is
# nested without end is a RecursionError.
NO_COMPLETION = (openai.APIError, ValueError, RecursionError)


@dataclass(frozen=True)
class ModelCard:
    """What a server says of a model in its list; None for what it does not say. `context_length` is in tokens.

    `weights` is the path or the name that the server has the weights from, vLLM's `root`.
    """

    context_length: int | None = None
    weights: str | None = None


@dataclass(frozen=True)
class ChatModel:
    """A model on a server. The default of `sampling` is that of the published figures.

    `rank` is the data-parallel rank that is to answer; None leaves the choice to the server. `limit_name` holds the
    name of the field that limits the tokens of a reply. The server may teach another one. `down` says why the server
    did not answer at the start of the run. `weights` are those that it may state; where there are none, it may state
    any. `small_image` gives the address of a small image, as the run sends images.
    """

    client: openai.AsyncOpenAI
    name: str
    sampling: Sampling = field(default_factory=Sampling)
    rank: int | None = None
    limit_name: list[str] = field(default_factory=lambda: [MAX_TOKENS_NAME])
    down: str = ""
    weights: frozenset[str] = frozenset()
    small_image: Callable[[], AbstractContextManager[str]] = lambda: nullcontext(BLACK_IMAGE_URL)

    @property
    def base_url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @property
    def address(self) -> str:
        """The base URL for people and files: without name, password and query."""
        return shown_address(self.client.base_url)

    async def complete(self, messages: Sequence[Message], fields: Mapping[str, Any] = NOTHING) -> Reply:
        """Ask once for the next message; `fields` are further ones of the body.

        Raises BadRequestError (HTTP 400), RankRefusedError, UnavailableError, RefusesAllError, or openai.APIStatusError
        for other refusals."""
        started = time.monotonic()
        try:
            reply = await self._ask(messages, self.sampling.max_tokens, None, fields)
        except NO_COMPLETION as error:
            if self.rank is not None and status_of(error) == _REFUSED and RANK_REFUSED in str(error):
                raise RankRefusedError(str(error)) from error
            # A small request tells what a refusal means. vLLM answers 500 where it may not read a file.
            if status_of(error) == _BROKEN or as_unavailable(error) is None:
                await self._verify_takes_small(messages, fields)
            if status_of(error) == _REFUSED:
                raise BadRequestError(str(error)) from error
            raise as_unavailable(error) or error from error
        return replace(reply, seconds=round(time.monotonic() - started, 3))

    async def _verify_takes_small(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> None:
        """After a refusal of `messages`: whether the server takes a small request of their kind, with two images if
        they have images. Raises RefusesAllError if it does not, UnavailableError if it fails."""
        if not has_images(messages):
            refusal = await self._refusal({"role": "user", "content": SMALL_TEXT}, fields)
            what, cure = "a short question", "--max-model-len and the chat template"
        else:
            with self.small_image() as url:
                refusal = await self._refusal(image_message(url, text=SMALL_TEXT, count=2), fields)
            what = "two small images"
            cure = "--max-model-len, --limit-mm-per-prompt, the chat template, and whether the model takes images"
            inline = image_message(BLACK_IMAGE_URL, text=SMALL_TEXT, count=2)
            if refusal and url != BLACK_IMAGE_URL and not await self._refusal(inline, fields):
                raise RefusesAllError(
                    f"the server at {self.address} cannot read frames by their address: {refusal.message}; start vLLM "
                    "with --allowed-local-media-path and the folder of --frame-root, or run this with "
                    "--image-transport base64"
                )
        if refusal and refusal.status_code == _BROKEN:
            raise as_unavailable(refusal) or refusal
        if refusal:
            raise RefusesAllError(
                f"the server at {self.address} does not even take {what}: {refusal.message}; see at the server: {cure}"
            )

    async def _refusal(self, message: Message, fields: Mapping[str, Any]) -> openai.APIStatusError | None:
        """How the server refuses one message, by a 500 too; None if it answers. Raises UnavailableError if it fails
        otherwise."""
        try:
            await self._ask([message], 1, PROBE_TIMEOUT_S, fields)
        except NO_COMPLETION as error:
            failure = as_unavailable(error)
            if isinstance(error, openai.APIStatusError) and (failure is None or error.status_code == _BROKEN):
                return error
            raise failure or error from error
        return None

    async def probe(self) -> str:
        """Why the server cannot serve, or the empty text if it lists the model and completes a tiny image prompt.
        Raises WeightsChangedError.

        Its health page is not requested: that answers 200 on a server that cannot complete anything any more.
        """
        failure: UnavailableError | None = None
        try:
            served = await _served(self.client)
            if self.name not in served:
                return f"it serves {', '.join(served) or 'no model'}, not {self.name}"
            self._compare_weights(served[self.name])
            await self._ask([image_message(BLACK_IMAGE_URL)], 1, PROBE_TIMEOUT_S)
        except UnavailableError as error:
            failure = error
        except NO_COMPLETION as error:
            # A server that lists the model and refuses the image does serve: not every model takes images.
            failure = as_unavailable(error)
        return f"{failure}{proxy_note(self.client.base_url)}" if failure else ""

    async def check_weights(self) -> bool:
        """Whether the server states its weights now. Raises WeightsChangedError if they are other ones."""
        with suppress(*NO_COMPLETION):
            return self._compare_weights((await _served(self.client)).get(self.name, ModelCard()))
        return False

    def _compare_weights(self, card: ModelCard) -> bool:
        if self.weights and card.weights and card.weights not in self.weights:
            raise WeightsChangedError(
                f"the server at {self.address} now serves {self.name} from {card.weights}, and the run began with "
                f"{' and '.join(sorted(self.weights))}"
            )
        return card.weights is not None

    async def read_card(self) -> ModelCard:
        """What the server says of the model now. Raises ServerError."""
        return (await _checked_models(self.client)).get(self.name, ModelCard())

    async def ask_one_token(self, messages: Sequence[Message]) -> str:
        """Request one token. Why that failed, or the empty text."""
        try:
            await self._ask(messages, 1, PROBE_TIMEOUT_S)
        except (UnavailableError, *NO_COMPLETION) as error:
            return f"{as_unavailable(error) or error}{proxy_note(self.client.base_url)}"
        return ""

    async def fetch_page(self, page: str) -> str:
        """The text of a page, by its place seen from the API, such as `../metrics`; empty if the server has none."""
        try:
            return await _get(self.client, str(self.client.base_url.join(page)))
        except NO_COMPLETION:
            return ""

    async def _ask(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        timeout_s: float | None,
        fields: Mapping[str, Any] = NOTHING,
    ) -> Reply:
        """One completion. Raises UnavailableError for one that is not whole, and NO_COMPLETION."""

        async def ask(limit_name: str) -> Reply:
            given = {"messages": messages, "model": self.name, limit_name: max_tokens, **self.sampling.fields, **fields}
            return read_reply(await self._post({k: v for k, v in given.items() if v is not None}, timeout_s))

        limit_name = self.limit_name[0]
        try:
            return await ask(limit_name)
        except openai.BadRequestError as error:
            if NEW_MAX_TOKENS_NAME not in error.message or limit_name == NEW_MAX_TOKENS_NAME:
                raise
        self.limit_name[:] = [NEW_MAX_TOKENS_NAME]
        return await ask(NEW_MAX_TOKENS_NAME)

    async def _post(self, body: Mapping[str, Any], timeout_s: float | None) -> object:
        """The JSON of the reply. The types of openai are not used: they take a minute for megabytes of nonsense."""
        options: Any = {} if timeout_s is None else {"timeout": _at_most(timeout_s, self.client)}
        if self.rank is not None:
            options["headers"] = {RANK_HEADER: str(self.rank)}
        try:
            reply = await self.client.post("/chat/completions", cast_to=httpx2.Response, body=body, options=options)
        except UnicodeEncodeError:
            return await self._post(without_surrogates(body), timeout_s)
        return json.loads(reply.content)


def without_surrogates(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with `?` for each lone surrogate: UTF-8 has none, and a reply may hold one as a JSON escape."""
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", errors="replace")
    return cast(dict[str, Any], json.loads(text))


def status_of(error: Exception) -> int | None:
    """The HTTP status by which a server refused or failed; None where it gave none."""
    return error.status_code if isinstance(error, openai.APIStatusError) else None


def as_unavailable(error: Exception) -> UnavailableError | None:
    """The error as the failure of the server; None if the request is at fault."""
    if isinstance(error, UnavailableError):
        return error
    status, name = status_of(error), type(error).__name__
    if status is not None and _REFUSED <= status < _BROKEN and status not in _UNAVAILABLE_STATUS:
        return None
    overload = isinstance(error, openai.APITimeoutError) or (status or 0) >= _BROKEN or status == _BUSY
    # openai says "Connection error." of all of them; the cause says which one it is.
    connection = isinstance(error, openai.APIConnectionError) and error.__cause__
    return UnavailableError(f"{name}: {connection or error}", overload=overload)


async def connect(
    *,
    base_url: str,
    api_key: str,
    model: str | None,
    timeout_s: float,
    headers: Mapping[str, str] = NOTHING,
    sampling: Sampling | None = None,
) -> ChatModel:
    """A model on the server at `base_url`: `model`, or the first that the server lists if `model` is None.

    Raises ServerError if nothing answers there, if the server cannot serve yet, or if the answer is not a list of
    models.
    """
    client = make_client(base_url, api_key, timeout_s, headers)
    served = await _checked_models(client)
    address = shown_address(client.base_url)
    if not served:
        raise ServerError(f"the server at {address} serves no model: start vLLM with the model's folder")
    if model is not None and model not in served:
        raise ServerError(f"the server at {address} does not serve {model!r} but {', '.join(served)}: see --model")
    name = model or next(iter(served))
    stated = served[name].weights
    return ChatModel(client, name, sampling or Sampling(), weights=frozenset({stated} if stated else ()))


def make_client(
    base_url: str, api_key: str, timeout_s: float, headers: Mapping[str, str] = NOTHING
) -> openai.AsyncOpenAI:
    """A client that retries nothing: `pool` decides what is retried. Raises ServerError."""
    shown = base_url.rpartition("@")[2].partition("?")[0]  # without name, password and query
    if not re.match("https?://", base_url, re.IGNORECASE):
        raise ServerError(f"--base-url: write http:// or https:// before the address {shown}")
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        # The message does not repeat the address: the password may be what makes it invalid.
        raise ServerError("--base-url has an address that is not valid (special characters: as %40)") from error
    try:
        http = BoundedClient(url)
    except OSError as error:
        raise ServerError(
            f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: {error}"
        ) from error
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        # The message of an invalid address may hold a part of the password.
        cause = "a SOCKS proxy needs  pip install socksio" if isinstance(error, ImportError) else "it is not valid"
        raise ServerError(f"the proxy of the environment for {url.host} cannot be used: {cause}") from error
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=api_key,
        timeout=timeout_s,
        max_retries=0,
        http_client=http,
        default_headers=dict(headers),
    )


async def _checked_models(client: openai.AsyncOpenAI) -> dict[str, ModelCard]:
    address, note = shown_address(client.base_url), proxy_note(client.base_url)
    hint = "" if address.endswith("/v1") else f": is it --base-url {address}/v1?"
    try:
        return await _served(client)
    except openai.APIConnectionError as error:
        cause = as_unavailable(error)
        raise ServerError(
            f"no server answers at {address} ({cause}): start vLLM, or name its address with --base-url{note}"
        ) from error
    except openai.APIStatusError as error:
        said = ServerError(f"the server at {address} refuses to list its models: {error.message}{hint}{note}")
        said.loading = error.status_code == _LOADING
        raise said from error
    except NO_COMPLETION as error:
        raise ServerError(f"what answers at {address} is not an OpenAI-compatible server{hint}{note}") from error


async def _served(client: openai.AsyncOpenAI) -> dict[str, ModelCard]:
    """The models by their names, in the order of the server."""
    listing = json.loads(await _get(client, "/models"))
    try:
        return {str(model["id"]): _card(model.get("max_model_len"), model.get("root")) for model in listing["data"]}
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("this is not a list of models") from error


def _card(length: object, root: object) -> ModelCard:
    weights = printable(root, limit=_MOST_CHARACTERS) if isinstance(root, str) else ""
    return ModelCard(length if type(length) is int else None, weights or None)


async def _get(client: openai.AsyncOpenAI, page: str) -> str:
    options: Any = {"timeout": _at_most(PAGE_TIMEOUT_S, client)}
    return (await client.get(page, cast_to=httpx2.Response, options=options)).text


def _at_most(seconds: float, client: openai.AsyncOpenAI) -> float:
    """`seconds`, or the time that each request has if that is less."""
    return min(seconds, client.timeout) if isinstance(client.timeout, (int, float)) else seconds
