"""What a run notes beside its cache and result: the settings of its records, and how many questions they cover."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from eva.agents.choice import AgentChoice
from eva.dataset.items import Item
from eva.endpoint.client import ChatModel
from eva.endpoint.pool import read_ranks
from eva.files import file_sha256
from eva.json_text import mapping, parse_json
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.cache import Cache
from eva.records.meta import (
    PROTOCOL_VERSION,
    WEIGHTS,
    Meta,
    begin,
    read_meta,
    require_equal,
)
from eva.run.options import Options
from eva.run.settings import Dataset
from eva.scoring.result_file import read_spans, write_spans
from eva.text import printable


async def begin_meta(
    cache: Cache, models: Sequence[ChatModel], dataset: Dataset, *, agent: AgentChoice, options: Options, pending: bool
) -> Meta:
    """The meta file of a run with `models`; of one with nothing to do, that of its cache.

    Raises SettingsDifferError if the cache was made with other settings.
    """
    has_records = bool(cache.outcomes) and not options.new_cache
    before = read_meta(cache.path) if has_records else None
    if not pending and (before is None or not before.settings):
        return before or Meta.unknown()
    name = models[0].name if models else options.model or (before and before.settings.get("model"))
    settings = _settings(name, models, dataset, agent, options)
    if before and not pending:
        require_equal(before.settings, settings, cache.path, force=options.force)
        return before
    meta = begin(cache.path, settings, before, has_records=has_records, force=options.force)
    more = {
        "frame_root": str(options.frame_root.absolute()),
        "servers": await asyncio.gather(*map(server_facts, models)),
        "request": {"temperature": options.temperature, "max_tokens": options.max_tokens},
    }
    return replace(meta, environment={**meta.environment, **more})


async def server_facts(model: ChatModel) -> dict[str, Any]:
    """What a server says that it is: nothing is decided by it. What it does not say is left out."""
    facts: dict[str, Any] = {"address": model.address}
    if not model.down:
        with suppress(ValueError):
            version = mapping(parse_json(await model.fetch_page("../version"))).get("version")
            facts["vllm"] = printable(version) if isinstance(version, str) else None
        facts["ranks"] = await read_ranks(model)
        facts |= {"model_path": " and ".join(model.weights) or None, "context_length": model.context_length}
    return {name: value for name, value in facts.items() if value is not None}


def _settings(
    model: object, models: Sequence[ChatModel], dataset: Dataset, agent: AgentChoice, options: Options
) -> dict[str, Any]:
    """All that changes results. What older meta files lack is left out where it has its usual value."""
    stated, side = sorted({path for model in models for path in model.weights}), options.pixels_per_token
    return {
        "dataset": options.dataset,
        "annotations_sha256": file_sha256(dataset.jsonl),
        "model": model,
        **({WEIGHTS: " and ".join(stated)} if stated else {}),
        "max_turns": options.max_turns,
        "max_visual_tokens": options.max_visual_tokens,
        "maxp": options.maxp,
        "fallback": options.fallback,
        "timestamps": options.timestamps,
        "backend": options.backend,
        "frame_tool": options.frame_tool.name,
        "protocol": PROTOCOL_VERSION,
        **agent.settings(),
        **options.sampling.changed,
        **({} if side == PIXELS_PER_TOKEN_SIDE else {"pixels_per_token": side}),
    }


def with_choice(meta: Meta, everything: Sequence[Item], items: Sequence[Item]) -> Meta:
    """`meta` with the number of questions and the chosen ones, beside those that an earlier run chose."""
    before = read_spans(meta.coverage.get("chosen")) or frozenset()
    chosen = (before | {item.index for item in items}) & {item.index for item in everything}
    return replace(meta, coverage={"items": len(everything), "chosen": write_spans(chosen)})


def with_coverage(meta: Meta, everything: Sequence[Item], cache: Cache) -> Meta:
    """`meta` with how many questions have a record: the result of a partial run must not look like a whole one."""
    outcomes = [cache.outcomes[item.index] for item in everything if item.index in cache.outcomes]
    failed = sum(outcome.failure == INFRASTRUCTURE for outcome in outcomes)
    pending = len(everything) - len(outcomes) + failed
    counts = {"items": len(everything), "recorded": len(outcomes), "pending": pending, "complete": not pending}
    return replace(meta, coverage={**meta.coverage, **counts})
