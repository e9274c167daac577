"""What a run notes beside its cache and result: the settings of its records, and how many questions they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eva.dataset.items import Item
from eva.files import file_sha256
from eva.records.cache import Cache
from eva.records.meta import Meta, begin
from eva.run.options import Options
from eva.run.settings import Dataset
from eva.scoring.coverage import read_spans, write_spans
from eva.scoring.score import Score


def begin_meta(cache: Cache, model: str, dataset: Dataset, options: Options, home: Path) -> Meta:
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
    }
    has_records = bool(cache.outcomes) and not options.new_cache
    meta = begin(cache.path, settings, has_records=has_records, force=options.force, home=home)
    return replace(meta, environment={**meta.environment, "frame_root": str(options.frame_root.absolute())})


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
