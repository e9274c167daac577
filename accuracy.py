#!/usr/bin/env python3
"""Score a result file, or compare two of the same questions. Exit codes: 0 done; 2 the files cannot be scored."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva.errors import EvaError
from eva.interval import clustered_interval
from eva.meta import read_meta
from eva.paired import compare
from eva.paired_summary import paired_json, paired_lines
from eva.published import caveat_lines, comparison_json, comparison_lines, identify, load_published
from eva.results import read_outcomes
from eva.scoring import Outcome, score
from eva.side import read_side, same_settings, side_notes
from eva.summary import file_json, file_lines, interval_line
from eva.terminal import run_command
from eva.text import printable

HOME = Path(__file__).resolve().parent
PUBLISHED = HOME / "results-12k" / "published.json"
MANIFEST = HOME / "data" / "manifest.json"


def main() -> int:
    options = parse_arguments()
    try:
        print("\n".join(answer(options)))
    except EvaError as error:
        print(f"accuracy.py: {printable(str(error), limit=2000)}", file=sys.stderr)
        return 2
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Score a result file: every line of it counts. With two files of the same questions: compare them."
    )
    parser.add_argument("file", type=Path, help="a result_<dataset>.jsonl")
    parser.add_argument("other", type=Path, nargs="?", help="another one; differences are this one minus the first")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    return parser.parse_args()


def answer(options: argparse.Namespace) -> list[str]:
    """The lines to print. Raises EvaError."""
    if options.other is not None:
        return comparison(options.file, options.other, as_json=options.json)
    outcomes = read_outcomes(options.file)
    return [to_json(report_json(options.file, outcomes))] if options.json else report(options.file, outcomes)


def report(path: Path, outcomes: Sequence[Outcome]) -> list[str]:
    """The reference's lines, then the uncertainty, then the published figures where the dataset is known."""
    figures = score(outcomes, total=len(outcomes))
    interval = clustered_interval([o.video for o in outcomes], [o.correct for o in outcomes])
    lines = [*file_lines(figures), interval_line(interval)]
    published = identify(path, outcomes, load_published(PUBLISHED))
    if published is not None:
        lines += comparison_lines(published, outcomes, figures.accuracy, interval)
        meta = read_meta(path)
        lines += caveat_lines(meta, published.dataset, PUBLISHED, MANIFEST) if meta else []
    return lines


def report_json(path: Path, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What `report` says, for programs."""
    figures = score(outcomes, total=len(outcomes))
    interval = clustered_interval([o.video for o in outcomes], [o.correct for o in outcomes])
    content: dict[str, Any] = {"file": str(path), **file_json(figures, interval), "dataset": None}
    published = identify(path, outcomes, load_published(PUBLISHED))
    if published is not None:
        meta = read_meta(path)
        content |= comparison_json(published, outcomes, figures.accuracy, interval)
        content["caveats"] = caveat_lines(meta, published.dataset, PUBLISHED, MANIFEST) if meta else []
    return content


def comparison(path_a: Path, path_b: Path, *, as_json: bool) -> list[str]:
    """Both files over the questions that they share."""
    published = load_published(PUBLISHED)
    a, b = read_side(path_a, published), read_side(path_b, published)
    compared, alike, notes = compare(a.samples, b.samples), same_settings(a, b), side_notes(a, b)
    if as_json:
        files = {"a": str(path_a), "b": str(path_b)}
        return [to_json({**files, **paired_json(compared, same_settings=alike), "notes": notes})]
    return [f"A: {path_a}", f"B: {path_b}", *paired_lines(compared, same_settings=alike), *map(printable, notes)]


def to_json(content: dict[str, Any]) -> str:
    # ASCII, so that any terminal takes it, and a lone surrogate too.
    return json.dumps(content, indent=1, allow_nan=False)


if __name__ == "__main__":
    sys.exit(run_command(main))
