#!/usr/bin/env python3
"""Score a result file, or compare two of the same questions.

Exit codes: 0 done; 2 the files cannot be scored; 3 done, but a file is of a run that has not finished (0 with
--partial).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.errors import EvaError
from eva.scoring.assessment import assess_file
from eva.scoring.compare_files import (
    ComparedResult,
    compare_results,
    note_lines,
    partial_lines,
    read_compared,
    same_settings,
)
from eva.scoring.compare_summary import comparison_json, comparison_lines
from eva.scoring.published import load_published
from eva.terminal import run_command
from eva.text import printable

HOME = Path(__file__).resolve().parent
UNFINISHED = 3


@dataclass(frozen=True)
class Answer:
    """The lines to print, and whether they are of a run that has not finished."""

    lines: Sequence[str]
    partial: bool


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
    parser.add_argument("other", type=Path, nargs="?", help="a second one; differences are the second minus the first")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument("--partial", action="store_true", help="exit with 0 for a run that has not finished, too")
    return parser.parse_args()


def make_answer(options: argparse.Namespace) -> Answer:
    """Raises EvaError."""
    published = load_published(HOME)
    if options.other is not None:
        a, b = read_compared(options.file, published), read_compared(options.other, published)
        lines = [to_json(comparison_content(a, b))] if options.json else comparison(a, b)
        return Answer(lines, a.partial or b.partial)
    assessment = assess_file(options.file, published)
    lines = [to_json(assessment.to_json())] if options.json else assessment.lines()
    return Answer(lines, assessment.score.partial)


def comparison(a: ComparedResult, b: ComparedResult) -> list[str]:
    """Both files over the questions that both have. The first lines say which of them is of an unfinished run."""
    return [
        *partial_lines(a, b),
        f"A: {a.origin.path}",
        f"B: {b.origin.path}",
        *comparison_lines(compare_results(a, b), same_settings=same_settings(a, b)),
        *map(printable, note_lines(a, b)),
    ]


def comparison_content(a: ComparedResult, b: ComparedResult) -> dict[str, Any]:
    """What `comparison` says, for programs."""
    return {
        "a": str(a.origin.path),
        "b": str(b.origin.path),
        "partial": {"a": a.partial, "b": b.partial},
        "to_go": {"a": a.score.to_go, "b": b.score.to_go},
        **comparison_json(compare_results(a, b), same_settings=same_settings(a, b)),
        "notes": [*partial_lines(a, b), *note_lines(a, b)],
    }


def to_json(content: dict[str, Any]) -> str:
    # ASCII, so that any terminal takes it, and a lone surrogate too.
    return json.dumps(content, indent=1, allow_nan=False)


if __name__ == "__main__":
    sys.exit(run_command(main))
