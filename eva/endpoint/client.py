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
    ServerError,
    ServersUnusableError,
    UnavailableError,
)
from eva.endpoint.http_client import Client
from eva.json_text import mapping
from eva.protocol.messages import Message
from eva.text import printable

# For the list of models and every other page; for a request of one token.
PAGE_TIMEOUT_S, PROBE_TIMEOUT_S = 10.0, 60.0
# vLLM's header, and the word in its refusal of a rank that it does not have.
RANK_HEADER, RANK_REFUSED = "X-data-parallel-rank", "data_parallel_rank"
# About 40 tokens: the opening of a sample has more.
SMALL_TEXT = "What is shown in this video? " * 5
# What servers that do not take `max_tokens` call it.
NEW_LIMIT_NAME = "max_completion_tokens"


@dataclass(frozen=True)
class ChatModel:
    """A model on a server; with the name "", the first that the server lists.

    `rank` is the data-parallel rank that is to answer; None leaves the choice to the server. `limit_name` holds the
    name of the field that limits a reply, which the server may correct. `down` says why the server did not answer at
    the start of the run. `weights` are the paths of those that it may state (vLLM's `root`); where there are none, it
    may state any. `context_length` is in tokens. `small_image` gives the address of a small image, as the run sends
    images.
    """

    client: Client
    name: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    rank: int | None = None
    limit_name: list[str] = field(default_factory=lambda: ["max_tokens"])
    down: str = ""
    weights: frozenset[str] = frozenset()
    context_length: int | None = None
    small_image: Callable[[], AbstractContextManager[str]] = lambda: nullcontext(BLACK_IMAGE_URL)

    @property
    def base_url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @property
    def address(self) -> str:
        """The base URL for people and files: without name, password and query."""
        return self.client.address

    async def connect(self) -> ChatModel:
        """The model as the server lists it now. Raises ServerError if nothing answers there, or not with this model."""
        try:
            served = await self._listed()
        except (RefusedError, UnavailableError) as error:
            hint = "" if self.address.endswith("/v1") else f"; is it --base-url {self.address}/v1?"
            raise ServerError(
                f"no server answers at {self.address} with a list of models ({error}): start it, or name it with "
                f"--base-url{hint}"
            ) from error
        name = self.name or next(iter(served), "")
        if name not in served:
            listed = f"does not serve {name!r} but {', '.join(served)}: see --model" if served else "serves no model"
            raise ServerError(f"the server at {self.address} {listed}")
        length, weights = served[name].get("max_model_len"), _weights(served[name])
        context = length if type(length) is int else None
        return replace(self, name=name, weights=frozenset(filter(None, [weights])), context_length=context)

    async def _listed(self) -> dict[str, Mapping[str, Any]]:
        """What the server says of its models, by their names, in its order. Raises RefusedError, UnavailableError."""
        listing = await self.client.ask("models", at_most_s=PAGE_TIMEOUT_S)
        try:
            return {str(model["id"]): mapping(model) for model in listing["data"]}
        except (LookupError, TypeError) as error:
            raise UnavailableError("this is not a list of models, as an OpenAI-compatible server gives it") from error

    async def complete(self, messages: Sequence[Message], fields: Mapping[str, Any] = NOTHING) -> Reply:
        """Ask once for the next message; `fields` are further ones of the body.

        Raises BadRequestError (HTTP 400), RankRefusedError, UnavailableError, ServersUnusableError, or
        RefusedError for other refusals."""
        started = time.monotonic()
        try:
            reply = await self._ask(messages, self.sampling.max_tokens, None, fields)
        except (RefusedError, UnavailableError) as error:
            if self.rank is not None and isinstance(error, BadRequestError) and RANK_REFUSED in str(error):
                raise RankRefusedError(str(error)) from error
            if isinstance(error, RefusedError) or error.status == 500:
                await self._verify_takes_small(messages, fields)
            raise
        return replace(reply, seconds=round(time.monotonic() - started, 3))

    async def _verify_takes_small(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> None:
        """After a refusal of `messages`: whether the server takes a small request of their kind, with two images if
        they have images. Raises ServersUnusableError if it does not, UnavailableError if it fails."""
        what, cure = "a short question", "--max-model-len and the chat template"
        inline: Message = {"role": "user", "content": SMALL_TEXT}
        with self.small_image() as url:
            small = inline
            if has_images(messages):
                what = "two small images"
                cure += (
                    ", --limit-mm-per-prompt, --allowed-local-media-path (or run this with --image-transport base64), "
                    "and whether the model takes images"
                )
                small, inline = (image_message(one, asking=SMALL_TEXT, count=2) for one in (url, BLACK_IMAGE_URL))
            refusal = await self.ask_one_token([small], fields)
        if isinstance(refusal, UnavailableError):
            # With 500, vLLM also says that it may not read a file. A server that is ill fails without the file, too.
            only_files = refusal.status == 500 and await self.ask_one_token([inline], fields) is None
            if not only_files:
                raise refusal
        if refusal:
            raise ServersUnusableError(
                f"the server at {self.address} does not even take {what}: {refusal}; see at the server: {cure}"
            )

    async def probe(self) -> str:
        """Why the server cannot serve, or the empty text if it lists the model and completes a tiny image prompt.
        Raises ServersUnusableError if it states other weights.

        Its health page is not requested: that answers 200 on a server that cannot complete anything any more.
        """
        try:
            served = await self._listed()
        except (RefusedError, UnavailableError) as failure:
            return str(failure)
        if self.name not in served:
            return f"it serves {', '.join(served) or 'no model'}, not {self.name}"
        stated = _weights(served[self.name])
        if self.weights and stated and stated not in self.weights:
            raise ServersUnusableError(
                f"the server at {self.address} now serves {self.name} from {stated}, and the run began with "
                f"{' and '.join(sorted(self.weights))}"
            )
        failed = await self.ask_one_token([image_message(BLACK_IMAGE_URL)])
        # A server that lists the model and refuses the image does serve: not every model takes images.
        return str(failed) if isinstance(failed, UnavailableError) else ""

    async def ask_one_token(
        self, messages: Sequence[Message], fields: Mapping[str, Any] = NOTHING
    ) -> RefusedError | UnavailableError | None:
        """Request one token. Why that failed, if it did."""
        try:
            await self._ask(messages, 1, PROBE_TIMEOUT_S, fields)
        except (RefusedError, UnavailableError) as error:
            return error
        return None

    async def fetch_page(self, page: str) -> str:
        """The text of a page, by its place seen from the API, such as `../metrics`; empty if the server has none."""
        with suppress(RefusedError, UnavailableError):
            return await self.client.fetch(page, at_most_s=PAGE_TIMEOUT_S)
        return ""

    async def _ask(
        self, messages: Sequence[Message], max_tokens: int, at_most_s: float | None, fields: Mapping[str, Any]
    ) -> Reply:
        headers = {} if self.rank is None else {RANK_HEADER: str(self.rank)}
        name = self.limit_name[0]
        given = {"messages": messages, "model": self.name, name: max_tokens, **self.sampling.fields, **fields}
        body = {key: value for key, value in given.items() if value is not None}
        try:
            return read_reply(await self.client.ask("chat/completions", body, at_most_s=at_most_s, headers=headers))
        except BadRequestError as error:
            if NEW_LIMIT_NAME not in str(error) or name == NEW_LIMIT_NAME:
                raise
        self.limit_name[0] = NEW_LIMIT_NAME
        return await self._ask(messages, max_tokens, at_most_s, fields)


def _weights(card: Mapping[str, Any]) -> str:
    root = card.get("root")
    return printable(root, limit=4096) if isinstance(root, str) else ""
