"""What a run says at its end: the figures of its questions, and their JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from eva.files import replace_text
from eva.run.evaluate import Ended
from eva.scoring.figures import (
    accuracy_line,
    count_lines,
    partial_lines,
    published_lines,
    record_lines,
    sure_lines,
    with_indices,
)
from eva.scoring.published import load_published, put_beside, settings_caveats
from eva.scoring.result_file import named_dataset
from eva.scoring.score import Score, make_score
from eva.scoring.time_use import time_lines
from eva.text import folded

_COLUMNS, _LABEL = 80, 15


def summarize(ended: Ended, json_file: Path | None) -> list[str]:
    """What counts most, after an empty line the rest, and at last where the result is. `json_file` gets the same
    figures. Raises WriteError."""
    score = make_score(ended.outcomes, len(ended.items) - len(ended.outcomes))
    if json_file is not None:
        frames = {"asked": ended.frames.asked, "decoded": ended.frames.decoded}
        content = {**asdict(score), "wall_seconds": round(ended.wall_s, 1), "frames": frames, "time_use": ended.times}
        replace_text(json_file, json.dumps(content, indent=1) + "\n", "--json")
    partial = " (of a partial run)" if ended.coverage.partial else ""
    lines = [*head_lines(ended, score), "", *rest_lines(ended, score), "", f"Result: {ended.result}{partial}"]
    return [*lines, ended.coverage.choice] if ended.coverage.of_a_choice else lines


def head_lines(ended: Ended, score: Score) -> list[str]:
    """The accuracy over all items of the run, how sure that is, what the published figures are, and what failed."""
    published = load_published().get(named_dataset(ended.meta))
    failures = ", ".join(f"{count} {kind}" for kind, count in score.failures.items() if count)
    lines = [
        *([] if score.partial else [accuracy_line(score, 2)]),
        *sure_lines(score),
        *published_lines(put_beside(published, [one.index for one in ended.outcomes], score)),
        *(settings_caveats(ended.meta, published) if published else []),
        f"Failures: {failures or 'none'}",
    ]
    aligned = [part for line in lines for part in folded(_aligned(line), _COLUMNS, " " * _LABEL)]
    return [*partial_lines(score), *aligned]


def _aligned(line: str) -> str:
    label, _, text = line.partition(": ")
    return f"{label + ':':{_LABEL}}{text}" if len(label) < _LABEL else " " * _LABEL + line


def rest_lines(ended: Ended, score: Score) -> list[str]:
    """How the samples ended, and what the accuracy leaves out."""
    asked, (low, high) = ended.frames.asked, score.accuracy_bounds or (0.0, 0.0)
    kept = asked - ended.frames.decoded
    rate = f" ({kept / asked:.2%})" if asked else ""
    seconds = "not known" if score.average_seconds is None else f"{score.average_seconds:.2f}"
    return [
        f"Answered: {score.answered} of {score.total}",
        *count_lines(score, 2),
        f"Missing from the cache: {score.missing}",
        f"Errors: {with_indices(score.error_indices)}",
        f"Pending (infrastructure failures, missing): {score.pending}",
        *([] if score.partial else [f"Accuracy if all pending were wrong, right: {low:.2%}, {high:.2%}"]),
        *record_lines(score),
        f"Seconds per sample: {seconds}",
        f"Wall time of this run: {ended.wall_s:.0f} s",
        f"Frames of this run: {asked}, {kept} from the store{rate}",
        *time_lines(ended.times),
    ]
