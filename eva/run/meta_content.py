"""What a run notes beside its cache and result: the settings of its records, and how many questions they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eva.agents.choice import AGENT_SETTINGS, AgentChoice
from eva.dataset.items import Item
from eva.endpoint.completion import MAX_TOKENS
from eva.files import file_sha256
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.records.cache import Cache
from eva.records.meta import Meta, begin, read_meta, require_equal
from eva.run.options import Options
from eva.run.settings import Dataset
from eva.scoring.coverage import read_spans, write_spans
from eva.scoring.score import Score


def begin_meta(cache: Cache, model: str, dataset: Dataset, *, agent: AgentChoice, options: Options, home: Path) -> Meta:
    """The meta file of a run of `model`. Raises SettingsDifferError if the cache was made with other settings."""
    settings = {
        "dataset": options.dataset,
        "annotations_sha256": file_sha256(dataset.jsonl),
        "model": model,
        "max_turns": options.max_turns,
        "max_visual_tokens": options.max_visual_tokens,
        "maxp": options.maxp,
        "fallback": options.fallback,
        "timestamps": options.timestamps,
        "backend": options.backend,
        "frame_tool": options.frame_tool.name,
        **agent.settings(),
        **_unusual(options),
    }
    has_records = bool(cache.outcomes) and not options.new_cache
    return begin(cache.path, settings, has_records=has_records, force=options.force, home=home)


def finished_meta(cache: Path, agent: AgentChoice, *, force: bool) -> Meta:
    """The meta file of a cache in which nothing is missing. Raises SettingsDifferError if another agent made it."""
    meta = read_meta(cache) or Meta.unknown()
    if meta.settings:
        before = {name: value for name, value in meta.settings.items() if name in AGENT_SETTINGS}
        require_equal(before, agent.settings(), cache, force=force)
    return meta


def _unusual(options: Options) -> dict[str, Any]:
    """Settings that older meta files lack; one that has its usual value is left out, so that it is equal to those."""
    settings: dict[str, tuple[Any, Any]] = {
        "max_tokens": (options.max_tokens, MAX_TOKENS),
        "pixels_per_token": (options.pixels_per_token, PIXELS_PER_TOKEN_SIDE),
        "extra_body": (options.extra_body, {}),
    }
    return {name: value for name, (value, usual) in settings.items() if value != usual}


def with_choice(meta: Meta, everything: Sequence[Item], items: Sequence[Item]) -> Meta:
    """`meta` with the number of questions and the chosen ones, beside those that an earlier run chose."""
    before = read_spans(meta.coverage.get("chosen")) or frozenset()
    chosen = (before | {item.index for item in items}) & {item.index for item in everything}
    return replace(meta, coverage={"items": len(everything), "chosen": write_spans(chosen)})


def with_coverage(meta: Meta, everything: Sequence[Item], cache: Cache) -> Meta:
    """`meta` with how many questions have a record: the result of a partial run must not look like a whole one."""
    outcomes = [cache.outcomes[item.index] for item in everything if item.index in cache.outcomes]
    figures = Score(outcomes, len(everything) - len(outcomes))
    counts = {
        "items": figures.total,
        "recorded": figures.recorded,
        "pending": figures.pending,
        "complete": not figures.pending,
    }
    return replace(meta, coverage={**meta.coverage, **counts})
