"""The addresses of the flags -> models on their servers."""

from __future__ import annotations

import asyncio
import base64
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from eva.agent.tool_call import file_url
from eva.endpoint.client import ChatModel
from eva.endpoint.completion import BLACK_PNG_BASE64
from eva.endpoint.errors import ServerError
from eva.endpoint.http_client import Client
from eva.run.options import Options, SettingsError

log = logging.getLogger(__name__)

# A run with nothing to do waits so long for what the servers serve.
SOON_S = 2.0


async def connect_all(options: Options, *, needed: bool = True) -> list[ChatModel]:
    """One model per server; all servers must serve the same. A server that does not answer is down, and may come later,
    if another one answers now. Where the run needs none, those that do not answer soon are left out.

    Raises ServerError if no server answers, SettingsError if they serve different models.
    """
    if not needed:
        options = replace(options, request_timeout=min(SOON_S, options.request_timeout))

    async def connect(url: str) -> ChatModel | ServerError:
        try:
            return await make_model(url, options.model or "", options).connect()
        except ServerError as error:
            return error

    found = dict(zip(options.base_url, await asyncio.gather(*map(connect, options.base_url)), strict=True))
    models = [one for one in found.values() if isinstance(one, ChatModel)]
    failures = {url: one for url, one in found.items() if isinstance(one, ServerError)}
    if silent := [model.address for model in models if not model.weights]:
        log.warning("no weights are stated (`root` of /v1/models) by %s: they are not compared", ", ".join(silent))
    if not models and needed:
        raise next(iter(failures.values()))
    if not models:
        log.warning("no server answered; weights not compared (%s)", next(iter(failures.values())))
    if not needed:
        return models
    expected = frozenset[str]().union(*(model.weights for model in models))
    for url, failure in failures.items():
        log.warning("the run starts without one server: %s", failure)
        models.append(replace(make_model(url, models[0].name, options), down=str(failure), weights=expected))
    names = {model.name for model in models}
    if len(names) > 1:
        raise SettingsError(f"the servers serve different models, {', '.join(sorted(names))}: choose one with --model")
    return models


def make_model(url: str, name: str, options: Options) -> ChatModel:
    """The model of this name on a server that is not asked yet. Raises ServerError."""
    model = ChatModel(Client(url, options.key, options.request_timeout, dict(options.header)), name, options.sampling)
    if options.image_transport == "base64":
        return model
    return replace(model, small_image=partial(small_image, options.frame_root))


@contextmanager
def small_image(folder: Path) -> Iterator[str]:
    """The address of a file in `folder` with an image of one visual token. A server that runs as another user can read
    it. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".png") as file:
        file.write(base64.b64decode(BLACK_PNG_BASE64))
        file.flush()
        frame = Path(file.name)
        frame.chmod(0o644)
        yield file_url(frame)
