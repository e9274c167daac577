"""The addresses of the flags -> models on their servers.

openai is imported here, when a client is made: its import takes 0.3 s, and `--help` does not need it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from eva.endpoint.errors import ServerError, ServerLoadingError
from eva.run.options import ServerSettings, SettingsError

if TYPE_CHECKING:
    from eva.endpoint.client import ChatModel

log = logging.getLogger(__name__)

# A server that loads its model is asked again after so many seconds.
LOADING_PAUSE_S = 2.0
# A run with nothing to do asks the servers only what they serve.
SOON_S = 2.0


async def connect_all(settings: ServerSettings) -> list[ChatModel]:
    """One model per server; all servers must serve the same. A server that does not answer is down, and may come later,
    if another one answers now. Where servers only load their models, the run waits for them.

    Raises ServerError if no server answers, SettingsError if they serve different models.
    """
    models, failures = await _connect_each(settings)
    if not models and _loading(failures):
        log.warning("%s: waiting for up to %g s (--outage-timeout)", _loading(failures)[0], settings.outage_timeout)
        ends_at = monotonic() + settings.outage_timeout
        while not models and _loading(failures) and monotonic() < ends_at:
            await asyncio.sleep(LOADING_PAUSE_S)
            models, failures = await _connect_each(settings)
    if not models:
        raise next(iter(failures.values()))
    for url, failure in failures.items():
        log.warning("the run starts without one server: %s", failure)
        models.append(replace(make_model(url, models[0].name, settings), down=str(failure)))
    names = {model.name for model in models}
    if len(names) > 1:
        raise SettingsError(f"the servers serve different models, {', '.join(sorted(names))}: choose one with --model")
    return models


async def connect_soon(settings: ServerSettings) -> list[ChatModel]:
    """The models of the servers that answer within SOON_S."""
    models, _ = await _connect_each(replace(settings, request_timeout=min(SOON_S, settings.request_timeout)))
    return models


async def _connect_each(settings: ServerSettings) -> tuple[list[ChatModel], dict[str, ServerError]]:
    """The models of the servers that answer, and why the others do not, by their addresses."""
    models: dict[str, ChatModel] = {}
    failures: dict[str, ServerError] = {}

    async def connect_one(url: str) -> None:
        try:
            models[url] = await connect_to(url, settings)
        except ServerError as error:
            failures[url] = error

    await asyncio.gather(*map(connect_one, settings.base_url))
    return [models[url] for url in settings.base_url if url in models], failures


def _loading(failures: Mapping[str, ServerError]) -> list[ServerError]:
    return [failure for failure in failures.values() if isinstance(failure, ServerLoadingError)]


def make_model(url: str, name: str, settings: ServerSettings) -> ChatModel:
    """The model of this name on a server that is not asked yet. Raises ServerError."""
    from eva.endpoint.client import ChatModel, make_client  # noqa: PLC0415

    client = make_client(url, settings.key, settings.request_timeout, dict(settings.header))
    return ChatModel(client, name, settings.sampling)


async def connect_to(url: str, settings: ServerSettings) -> ChatModel:
    """The model on one server. Raises ServerError."""
    from eva.endpoint.client import connect  # noqa: PLC0415

    return await connect(
        base_url=url,
        api_key=settings.key,
        model=settings.model,
        timeout_s=settings.request_timeout,
        headers=dict(settings.header),
        sampling=settings.sampling,
    )
