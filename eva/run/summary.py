"""What a run says at its end: the figures of its questions, and their JSON."""

from __future__ import annotations

import json
from pathlib import Path

from eva.files import replace_text
from eva.records.meta import Meta
from eva.run.evaluate import Ended
from eva.scoring.origin import named_dataset
from eva.scoring.published import Published, caveat_lines, load_published, summary_rows
from eva.scoring.score import Score
from eva.scoring.summary import choice_line, head_lines, rest_lines, summary_json
from eva.scoring.time_use import time_lines


def summarize(ended: Ended, json_file: Path | None) -> list[str]:
    """What counts most, after an empty line the rest, and at last where the result is. `json_file` gets the same
    figures. Raises WriteError."""
    score = Score(ended.outcomes, len(ended.items) - len(ended.outcomes))
    counts = {"frames_asked": ended.frames.asked, "frames_decoded": ended.frames.decoded}
    if json_file is not None:
        figures_json = {**summary_json(score, ended.wall_s, **counts), "time_use": ended.times}
        replace_text(json_file, json.dumps(figures_json, indent=1) + "\n", "--json")
    published = load_published().get(named_dataset(ended.meta))
    head = head_lines(score, _published_rows(score, ended.meta, published))
    rest = [*rest_lines(score, ended.wall_s, **counts), *time_lines(ended.times)]
    return [*head, "", *rest, "", *_result_lines(ended)]


def _published_rows(score: Score, meta: Meta, entry: Published | None) -> list[str]:
    """The published figures of the dataset, and what keeps them from being comparable."""
    if entry is None:
        return []
    rows = summary_rows(entry, [one.index for one in score.outcomes], score.accuracy, score.interval)
    return rows + caveat_lines(meta, entry)


def _result_lines(ended: Ended) -> list[str]:
    """Where the result is, and which questions it covers."""
    partial = " (of a partial run)" if ended.coverage.partial else ""
    lines = [f"Result: {ended.result}{partial}"]
    return [*lines, choice_line(ended.coverage)] if ended.coverage.of_a_choice else lines
