#!/usr/bin/env python3
"""Score a result file. Exit codes: 0 scored; 2 the file cannot be scored."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eva.errors import EvaError
from eva.interval import clustered_interval
from eva.meta import read_meta
from eva.published import caveat_lines, comparison_lines, identify, load_published
from eva.results import read_outcomes
from eva.scoring import Outcome, score
from eva.summary import file_lines, interval_line

HOME = Path(__file__).resolve().parent
PUBLISHED = HOME / "results-12k" / "published.json"
MANIFEST = HOME / "data" / "manifest.json"


def main() -> int:
    parser = argparse.ArgumentParser(description="Score a result file: every line of it counts.")
    parser.add_argument("file", type=Path, help="a result_<dataset>.jsonl")
    path = parser.parse_args().file
    try:
        outcomes = read_outcomes(path)
        print("\n".join(report(path, outcomes)))
    except EvaError as error:
        print(f"accuracy.py: {error}", file=sys.stderr)
        return 2
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
