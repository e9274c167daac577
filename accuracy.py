#!/usr/bin/env python3
"""Score a result file, or compare two of the same questions.

Exit codes: 0 done; 2 the files cannot be scored; 3 done, but a file is of a run that has not finished (0 with
--partial).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.errors import EvaError
from eva.records.result_file import read_outcomes
from eva.scoring.compare_files import Side, compare_sides, partial_lines, read_side, same_settings, side_notes
from eva.scoring.compare_summary import paired_json, paired_lines
from eva.scoring.interval import Interval, clustered_interval
from eva.scoring.origin import Origin, find_origin
from eva.scoring.published import Published, caveat_lines, comparison_json, comparison_lines, load_published
from eva.scoring.score import Score, score
from eva.scoring.summary import (
    choice_line,
    file_json,
    file_lines,
    interval_line,
    partial_file_lines,
    unusable_lines,
)
from eva.terminal import run_command
from eva.text import printable

HOME = Path(__file__).resolve().parent
PUBLISHED = HOME / "results-12k" / "published.json"
MANIFEST = HOME / "data" / "manifest.json"
UNFINISHED = 3


@dataclass(frozen=True)
class Answer:
    """The lines to print, and whether they are of a run that has not finished."""

    lines: Sequence[str]
    partial: bool


@dataclass(frozen=True)
class Scored:
    """A result file, what is known of it, and its figures; of an unfinished run there is no interval."""

    path: Path
    origin: Origin
    figures: Score
    interval: Interval | None
    indices: frozenset[int]

    @property
    def accuracy(self) -> float | None:
        return None if self.origin.coverage.partial else self.figures.accuracy


def main() -> int:
    options = parse_arguments()
    try:
        answer = make_answer(options)
        code = UNFINISHED if answer.partial and not options.partial else 0
        print("\n".join(answer.lines))
    except EvaError as error:
        print(f"accuracy.py: {printable(str(error), limit=2000)}", file=sys.stderr)
        return 2
    return code


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Score a result file: every line of it counts. With two files of the same questions: compare them.",
        epilog="Exit codes: 0 done; 2 the files cannot be scored; 3 a file is of a run that has not finished.",
    )
    parser.add_argument("file", type=Path, help="a result_<dataset>.jsonl")
    parser.add_argument("other", type=Path, nargs="?", help="another one; differences are this one minus the first")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument("--partial", action="store_true", help="exit with 0 for a run that has not finished, too")
    return parser.parse_args()


def make_answer(options: argparse.Namespace) -> Answer:
    """Raises EvaError."""
    published = load_published(PUBLISHED)
    if options.other is not None:
        a, b = read_side(options.file, published), read_side(options.other, published)
        lines = [to_json(comparison_content(a, b))] if options.json else comparison(a, b)
        return Answer(lines, a.coverage.partial or b.coverage.partial)
    scored = read_scored_file(options.file, published)
    lines = [to_json(report_json(scored))] if options.json else report(scored)
    return Answer(lines, scored.origin.coverage.partial)


def read_scored_file(path: Path, published: Mapping[str, Published]) -> Scored:
    """Raises EvaError."""
    outcomes = read_outcomes(path)
    indices = frozenset(outcome.index for outcome in outcomes)
    origin = find_origin(path, indices, published)
    figures = score(outcomes, total=len(outcomes) + (origin.coverage.to_go or 0))
    interval = None
    if not origin.coverage.partial:
        interval = clustered_interval([o.video for o in outcomes], [o.correct for o in outcomes])
    return Scored(path, origin, figures, interval, indices)


def report(scored: Scored) -> list[str]:
    """The reference's lines, then the uncertainty, then the published figures where the dataset is known.

    Of an unfinished run, what can be said so far.
    """
    coverage, published = scored.origin.coverage, scored.origin.published
    if coverage.partial:
        lines = partial_file_lines(scored.figures, coverage.to_go)
    else:
        lines = [*file_lines(scored.figures), interval_line(scored.interval)]
    lines += unusable_lines(scored.figures)
    lines += [choice_line(coverage)] if coverage.of_a_choice else []
    if published is not None:
        lines += comparison_lines(published, scored.indices, scored.accuracy, scored.interval)
    return lines + caveats(scored)


def report_json(scored: Scored) -> dict[str, Any]:
    """What `report` says, for programs."""
    published = scored.origin.published
    content = file_json(scored.figures, scored.origin.coverage, scored.interval)
    content = {"file": str(scored.path), **content, "dataset": None}
    if published is not None:
        content |= comparison_json(published, scored.indices, scored.accuracy, scored.interval)
        content["caveats"] = caveats(scored)
    return content


def caveats(scored: Scored) -> list[str]:
    meta, published = scored.origin.meta, scored.origin.published
    return caveat_lines(meta, published.dataset, PUBLISHED, MANIFEST) if meta and published else []


def comparison(a: Side, b: Side) -> list[str]:
    """Both files over the questions that they share; first, which of them is of an unfinished run."""
    compared, notes = compare_sides(a, b), side_notes(a, b)
    lines = [*partial_lines(a, b), f"A: {a.path}", f"B: {b.path}"]
    return [*lines, *paired_lines(compared, same_settings=same_settings(a, b)), *map(printable, notes)]


def comparison_content(a: Side, b: Side) -> dict[str, Any]:
    """What `comparison` says, for programs."""
    return {
        "a": str(a.path),
        "b": str(b.path),
        "partial": {"a": a.coverage.partial, "b": b.coverage.partial},
        "to_go": {"a": a.coverage.to_go, "b": b.coverage.to_go},
        **paired_json(compare_sides(a, b), same_settings=same_settings(a, b)),
        "notes": [*partial_lines(a, b), *side_notes(a, b)],
    }


def to_json(content: dict[str, Any]) -> str:
    # ASCII, so that any terminal takes it, and a lone surrogate too.
    return json.dumps(content, indent=1, allow_nan=False)


if __name__ == "__main__":
    sys.exit(run_command(main))
