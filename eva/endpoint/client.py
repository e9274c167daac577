"""Chat requests to an OpenAI-compatible server: each is sent once, and a failure says whose it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from eva.endpoint.completion import BLACK_IMAGE_URL, NOTHING, Reply, Sampling, has_images, image_message, read_reply
from eva.endpoint.errors import (
    BadRequestError,
    RankRefusedError,
    RefusedError,
    RefusesAllError,
    ServerError,
    UnavailableError,
    WeightsChangedError,
)
from eva.endpoint.http_client import Client
from eva.protocol.messages import Message
from eva.text import printable

# For the list of models and every other page; for a request of one token.
PAGE_TIMEOUT_S, PROBE_TIMEOUT_S = 10.0, 60.0
# Of a stated path. Linux takes no longer one.
_MOST_CHARACTERS = 4096
# vLLM's header, and the word in its refusal of a rank that it does not have.
RANK_HEADER, RANK_REFUSED = "X-data-parallel-rank", "data_parallel_rank"
_BROKEN, _LOADING = 500, 503
# About 40 tokens: the opening of a sample has more.
SMALL_TEXT = "What is shown in this video? " * 5
# The field that limits the tokens of a reply, and its name on servers that refuse the first one.
MAX_TOKENS_NAME, NEW_MAX_TOKENS_NAME = "max_tokens", "max_completion_tokens"


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

    client: Client
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
        return self.client.address

    async def complete(self, messages: Sequence[Message], fields: Mapping[str, Any] = NOTHING) -> Reply:
        """Ask once for the next message; `fields` are further ones of the body.

        Raises BadRequestError (HTTP 400), RankRefusedError, UnavailableError, RefusesAllError, or RefusedError for
        other refusals."""
        started = time.monotonic()
        try:
            reply = await self._ask(messages, self.sampling.max_tokens, None, fields)
        except (RefusedError, UnavailableError) as error:
            if self.rank is not None and isinstance(error, BadRequestError) and RANK_REFUSED in str(error):
                raise RankRefusedError(str(error)) from error
            if _is_refusal(error):
                await self._verify_takes_small(messages, fields)
            raise
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
                    f"the server at {self.address} cannot read frames by their address: {refusal}; start vLLM with "
                    "--allowed-local-media-path and the folder of --frame-root, or run this with --image-transport "
                    "base64"
                )
        if isinstance(refusal, UnavailableError):
            raise refusal
        if refusal:
            raise RefusesAllError(
                f"the server at {self.address} does not even take {what}: {refusal}; see at the server: {cure}"
            )

    async def _refusal(self, message: Message, fields: Mapping[str, Any]) -> RefusedError | UnavailableError | None:
        """How the server refuses one message; None if it answers. Raises UnavailableError if it fails otherwise."""
        try:
            await self._ask([message], 1, PROBE_TIMEOUT_S, fields)
        except (RefusedError, UnavailableError) as error:
            if _is_refusal(error):
                return error
            raise
        return None

    async def probe(self) -> str:
        """Why the server cannot serve, or the empty text if it lists the model and completes a tiny image prompt.
        Raises WeightsChangedError.

        Its health page is not requested: that answers 200 on a server that cannot complete anything any more.
        """
        # A server that lists the model and refuses the image does serve: not every model takes images.
        with suppress(RefusedError):
            try:
                served = await _served(self.client)
                if self.name not in served:
                    return f"it serves {', '.join(served) or 'no model'}, not {self.name}"
                self._compare_weights(served[self.name])
                await self._ask([image_message(BLACK_IMAGE_URL)], 1, PROBE_TIMEOUT_S)
            except UnavailableError as failure:
                return f"{failure}{self.client.proxy_note}"
        return ""

    async def check_weights(self) -> bool:
        """Whether the server states its weights now. Raises WeightsChangedError if they are other ones."""
        with suppress(RefusedError, UnavailableError):
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
        except (RefusedError, UnavailableError) as error:
            return f"{error}{self.client.proxy_note}"
        return ""

    async def fetch_page(self, page: str) -> str:
        """The text of a page, by its place seen from the API, such as `../metrics`; empty if the server has none."""
        try:
            return await self.client.fetch(page, at_most_s=PAGE_TIMEOUT_S)
        except (RefusedError, UnavailableError):
            return ""

    async def _ask(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        at_most_s: float | None,
        fields: Mapping[str, Any] = NOTHING,
    ) -> Reply:
        headers = {} if self.rank is None else {RANK_HEADER: str(self.rank)}
        limit_name = self.limit_name[0]
        given = {"messages": messages, "model": self.name, limit_name: max_tokens, **self.sampling.fields, **fields}
        body = {name: value for name, value in given.items() if value is not None}
        try:
            return read_reply(await self.client.ask("chat/completions", body, at_most_s=at_most_s, headers=headers))
        except BadRequestError as error:
            if NEW_MAX_TOKENS_NAME not in str(error) or limit_name == NEW_MAX_TOKENS_NAME:
                raise
        self.limit_name[:] = [NEW_MAX_TOKENS_NAME]
        return await self._ask(messages, max_tokens, at_most_s, fields)


def _is_refusal(error: RefusedError | UnavailableError) -> bool:
    """Whether a small request can tell what the error means. vLLM answers 500 where it may not read a file."""
    return isinstance(error, RefusedError) or error.status == _BROKEN


async def connect(client: Client, model: str | None = None, sampling: Sampling | None = None) -> ChatModel:
    """A model on a server: `model`, or the first that the server lists if `model` is None.

    Raises ServerError if nothing answers there, if the server cannot serve yet, or if the answer is not a list of
    models.
    """
    served = await _checked_models(client)
    if not served:
        raise ServerError(f"the server at {client.address} serves no model: start vLLM with the model's folder")
    if model is not None and model not in served:
        listed = ", ".join(served)
        raise ServerError(f"the server at {client.address} does not serve {model!r} but {listed}: see --model")
    name = model or next(iter(served))
    stated = served[name].weights
    return ChatModel(client, name, sampling or Sampling(), weights=frozenset({stated} if stated else ()))


async def _checked_models(client: Client) -> dict[str, ModelCard]:
    try:
        return await _served(client)
    except (RefusedError, UnavailableError) as error:
        hint = "" if client.address.endswith("/v1") else f"; is it --base-url {client.address}/v1?"
        said = ServerError(
            f"no server answers at {client.address} with a list of models ({error}): start it, or name it with "
            f"--base-url{hint}{client.proxy_note}"
        )
        said.loading = isinstance(error, UnavailableError) and error.status == _LOADING
        raise said from error


async def _served(client: Client) -> dict[str, ModelCard]:
    """The models by their names, in the order of the server."""
    listing = await client.ask("models", at_most_s=PAGE_TIMEOUT_S)
    try:
        return {str(model["id"]): _card(model.get("max_model_len"), model.get("root")) for model in listing["data"]}
    except (AttributeError, LookupError, TypeError) as error:
        raise UnavailableError("this is not a list of models, as an OpenAI-compatible server gives it") from error


def _card(length: object, root: object) -> ModelCard:
    weights = printable(root, limit=_MOST_CHARACTERS) if isinstance(root, str) else ""
    return ModelCard(length if type(length) is int else None, weights or None)
