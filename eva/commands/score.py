"""Score a result file, compare two of the same questions, measure how much repeats of one setting differ, or make a
table.

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
from eva.scoring.assessment import assess_file
from eva.scoring.compare_files import (
    ComparedResult,
    compare_results,
    note_lines,
    partial_lines,
    read_answered,
    read_compared,
    same_settings,
)
from eva.scoring.compare_summary import comparison_json, comparison_lines
from eva.scoring.published import Published, load_published
from eva.scoring.repeats import measure_repeats
from eva.scoring.repeats_summary import repeats_json, repeats_lines, unfinished_lines
from eva.scoring.tables import FORMATS, make_table
from eva.terminal import CommandParser
from eva.text import printable, printable_lines

UNFINISHED = 3


@dataclass(frozen=True)
class Answer:
    """What to print, whether it is of a run that has not finished, and what goes to standard error."""

    text: str
    partial: bool
    notes: Sequence[str] = ()


def main(argv: Sequence[str]) -> int:
    """The command `argv`, whose first word is its name; gives the exit code."""
    options = parse_arguments(argv)
    name = Path(argv[0]).name
    try:
        answer = make_answer(options)
        code = UNFINISHED if answer.partial and not options.partial else 0
        print(answer.text)
        for note in answer.notes:
            print(f"{name}: {printable(note, limit=2000)}", file=sys.stderr)
    except EvaError as error:
        print(f"{name}: {printable(str(error), limit=2000)}", file=sys.stderr)
        return 2
    return code


def make_parser(name: str = "accuracy.py") -> CommandParser:
    parser = CommandParser(
        prog=name,
        description="Score a result file: every line of it counts. With two files of the same questions:\n"
        "compare them. With more, of repeats of one setting: how much their figures differ.",
        epilog="exit codes:\n"
        "  0  done\n"
        "  2  the files cannot be scored or compared\n"
        "  3  done, but a file is of a run that has not finished (0 with --partial)",
    )
    files = (
        "a result file; with two of the same questions, differences are the second minus the first; more are taken for "
        "repeats of one setting"
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=files)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print everything as one JSON object")
    form.add_argument("--table", choices=tuple(FORMATS), help="print a table with a row for each file")
    parser.add_argument("--repeats", action="store_true", help="take two files for repeats, too")
    parser.add_argument("--by", choices=("category",), help="with --table: also a row for each category of a dataset")
    parser.add_argument("--partial", action="store_true", help="exit with 0, not with 3, if a run has not finished")
    return parser


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser(Path(argv[0]).name)
    options = parser.parse_args(argv[1:])
    if options.by and not options.table:
        parser.error("--by needs --table")
    if options.repeats and (options.table or len(options.files) < 2):
        parser.error("--repeats needs two files or more, and no --table")
    return options


def make_answer(options: argparse.Namespace) -> Answer:
    """Raises EvaError."""
    published = load_published()
    if options.table:
        return table(options, published)
    if options.repeats or len(options.files) > 2:
        return repeats(options, published)
    if len(options.files) == 2:
        a, b = (read_compared(file, published) for file in options.files)
        text = to_json(comparison_content(a, b)) if options.json else printable_lines(comparison(a, b))
        return Answer(text, a.partial or b.partial)
    assessment = assess_file(options.files[0], published)
    text = to_json(assessment.to_json()) if options.json else printable_lines(assessment.lines())
    return Answer(text, assessment.score.partial)


def table(options: argparse.Namespace, published: Mapping[str, Published]) -> Answer:
    files = [read_answered(file, published) for file in options.files]
    made = make_table(files, by_category=options.by == "category")
    partial = any(file.origin.coverage.partial for file in files)
    return Answer(FORMATS[options.table](made), partial, made.notes)


def repeats(options: argparse.Namespace, published: Mapping[str, Published]) -> Answer:
    """The files as repeats of one setting. Of an unfinished run there are no figures yet."""
    results = [read_compared(file, published) for file in options.files]
    content: dict[str, Any] = {"files": list(map(str, options.files)), "to_go": [one.score.to_go for one in results]}
    lines = unfinished_lines(results)
    if not lines:
        measured = measure_repeats(results)
        lines = repeats_lines(measured, results)
        content |= repeats_json(measured, results)
    text = to_json(content) if options.json else printable_lines(lines)
    return Answer(text, any(one.partial for one in results))


def comparison(a: ComparedResult, b: ComparedResult) -> list[str]:
    """Both files over the questions that both have. The first lines say which of them is of an unfinished run."""
    return [
        *partial_lines(a, b),
        f"A: {a.origin.path}, agent {a.agent}",
        f"B: {b.origin.path}, agent {b.agent}",
        *comparison_lines(compare_results(a, b), agents=(a.agent, b.agent), same_settings=same_settings(a, b)),
        *note_lines(a, b),
    ]


def comparison_content(a: ComparedResult, b: ComparedResult) -> dict[str, Any]:
    """What `comparison` says, for programs."""
    return {
        "a": str(a.origin.path),
        "b": str(b.origin.path),
        "partial": {"a": a.partial, "b": b.partial},
        "to_go": {"a": a.score.to_go, "b": b.score.to_go},
        **comparison_json(compare_results(a, b), agents=(a.agent, b.agent), same_settings=same_settings(a, b)),
        "notes": [*partial_lines(a, b), *note_lines(a, b)],
    }


def to_json(content: dict[str, Any]) -> str:
    # ASCII, so that any terminal takes it, and a lone surrogate too.
    return json.dumps(content, indent=1, allow_nan=False)
