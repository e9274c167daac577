"""What a run says at its end: the figures of its questions, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eva.dataset.items import Item
from eva.files import replace_text
from eva.records.cache import Cache
from eva.records.meta import Meta
from eva.records.outcome import Outcome
from eva.records.time_use import time_lines
from eva.run.time_use import TimedExecutor
from eva.scoring.coverage import measure
from eva.scoring.origin import named_dataset
from eva.scoring.published import Published, caveat_lines, summary_rows
from eva.scoring.score import Score
from eva.scoring.summary import choice_line, head_lines, rest_lines, summary_json


def summarize(
    items: Sequence[Item],
    cache: Cache,
    executor: TimedExecutor,
    meta: Meta,
    *,
    published: Mapping[str, Published],
    wall_s: float,
    json_file: Path | None,
) -> list[str]:
    """What counts most, and after an empty line the rest. `json_file` gets the same figures. Raises WriteError."""
    outcomes = outcomes_of(items, cache)
    figures = Score(outcomes, len(items) - len(outcomes))
    counts = {"frames_asked": executor.counts.asked, "frames_decoded": executor.counts.decoded}
    times = executor.figures()
    if json_file is not None:
        figures_json = {**summary_json(figures, wall_s, **counts), "time_use": times}
        replace_text(json_file, json.dumps(figures_json, indent=1) + "\n", "--json")
    head = head_lines(figures, _published_rows(figures, meta, published.get(named_dataset(meta))))
    return [*head, "", *rest_lines(figures, wall_s, **counts), *time_lines(times), ""]


def _published_rows(score: Score, meta: Meta, entry: Published | None) -> list[str]:
    """The published figures of the dataset, and what keeps them from being comparable."""
    if entry is None:
        return []
    rows = summary_rows(entry, [one.index for one in score.outcomes], score.accuracy, score.interval)
    return rows + caveat_lines(meta, entry)


def result_lines(result: Path, meta: Meta, cache: Cache) -> list[str]:
    """Where the result is, and which questions it covers."""
    covered = measure(result, meta.coverage, cache.outcomes, rows=None)
    lines = [f"Result: {result}" + (" (of a partial run)" if covered.partial else "")]
    return [*lines, choice_line(covered)] if covered.of_a_choice else lines


def outcomes_of(items: Sequence[Item], cache: Cache) -> list[Outcome]:
    """The outcomes of those items that have one, with the ground truths of this annotation file."""
    pairs = [(item, cache.outcomes[item.index]) for item in items if item.index in cache.outcomes]
    return [replace(one, ground_truth=item.ground_truth, video=item.videos[0]) for item, one in pairs]
