"""What a run says at its end: the figures of its questions, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from eva.scoring.score import Score
from eva.scoring.summary import choice_line, summary_json, summary_lines, truth_lines


def summarize(
    items: Sequence[Item], cache: Cache, executor: TimedExecutor, *, wall_s: float, json_file: Path | None
) -> list[str]:
    """The summary of the reference, then what it leaves out. `json_file` gets the same figures. Raises WriteError."""
    outcomes = outcomes_of(items, cache)
    figures = Score(outcomes, len(items) - len(outcomes))
    counts = {"frames_asked": executor.counts.asked, "frames_decoded": executor.counts.decoded}
    times = executor.figures()
    if json_file is not None:
        figures_json = {**summary_json(figures, wall_s, **counts), "time_use": times}
        replace_text(json_file, json.dumps(figures_json, indent=1) + "\n")
    return [*summary_lines(figures), *truth_lines(figures, wall_s, **counts), *time_lines(times)]


def result_lines(result: Path, meta: Meta, cache: Cache) -> list[str]:
    """Where the result is, and which questions it covers."""
    covered = measure(result, meta.coverage, cache.outcomes, rows=None)
    lines = [f"Result: {result}" + (" (of a partial run)" if covered.partial else "")]
    return [*lines, choice_line(covered)] if covered.of_a_choice else lines


def outcomes_of(items: Sequence[Item], cache: Cache) -> list[Outcome]:
    """The outcomes of those items that have one, with the ground truths of this annotation file."""
    pairs = [(item, cache.outcomes[item.index]) for item in items if item.index in cache.outcomes]
    return [replace(one, ground_truth=item.ground_truth, video=item.videos[0]) for item, one in pairs]
