"""What a server says that it is: for the meta file of a run. Nothing is decided by it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eva.endpoint.metrics import read_metrics
from eva.json_text import items, mapping, parse_json
from eva.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eva.endpoint.client import ChatModel


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
    version, listing, metrics = await asyncio.gather(
        model.fetch_page("../version"), model.fetch_page("models"), read_metrics(model)
    )
    cards = [mapping(card) for card in items(_parse(listing).get("data"))]
    card: Mapping[str, Any] = next((card for card in cards if card.get("id") == model.name), {})
    length = card.get("max_model_len")
    return ServerFacts(
        address=model.address,
        vllm=_text(_parse(version).get("version")),
        ranks=metrics.ranks if metrics else None,
        model_path=_text(card.get("root")),
        context_length=length if type(length) is int else None,
    )


def _parse(text: str) -> Mapping[str, Any]:
    try:
        return mapping(parse_json(text))
    except ValueError:
        return {}


def _text(value: object) -> str | None:
    return printable(value) if isinstance(value, str) else None
