"""What a server says that it is: for the `environment` of a meta file. Nothing is decided by it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eva.endpoint.errors import ServerError
from eva.endpoint.metrics import read_metrics
from eva.json_text import mapping, parse_json
from eva.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eva.endpoint.client import ChatModel, ModelCard


@dataclass(frozen=True)
class ServerFacts:
    """A field is None where the server does not say it.

    `ranks` is the number of data-parallel ranks, `model_path` the folder or name that the server has its model from,
    `context_length` is in tokens.
    """

    address: str
    vllm: str | None = None
    ranks: int | None = None
    model_path: str | None = None
    context_length: int | None = None


async def read_facts(model: ChatModel) -> ServerFacts:
    """Ask the server of `model`, unless it is down."""
    if model.down:
        return ServerFacts(model.address)
    version, card, metrics = await asyncio.gather(model.fetch_page("../version"), _card(model), read_metrics(model))
    return ServerFacts(
        address=model.address,
        vllm=_text(_parse(version).get("version")),
        ranks=metrics.ranks if metrics else None,
        model_path=card.weights if card else None,
        context_length=card.context_length if card else None,
    )


async def _card(model: ChatModel) -> ModelCard | None:
    try:
        return await model.read_card()
    except ServerError:
        return None


def _parse(text: str) -> Mapping[str, Any]:
    try:
        return mapping(parse_json(text))
    except ValueError:
        return {}


def _text(value: object) -> str | None:
    return printable(value) if isinstance(value, str) else None
