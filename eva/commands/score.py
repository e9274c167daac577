"""Score a result file, compare two of the same questions, measure how much repeats of one setting differ, or make a
table.

Exit codes: 0 done; 2 the files cannot be scored; 3 done, but a file is of a run that has not finished (0 with
--partial).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eva.errors import EvaError
from eva.scoring.compare import compare
from eva.scoring.figures import (
    comparison_lines,
    comparison_notes,
    file_json,
    file_lines,
    partial_lines,
    repeats_lines,
    repeats_notes,
)
from eva.scoring.published import load_published
from eva.scoring.render import FORMATS, make_table
from eva.scoring.repeats import measure_repeats
from eva.scoring.result_file import ResultFile, read_result
from eva.terminal import CommandParser
from eva.text import printable, printable_lines

UNFINISHED = 3


# What is said for people, and the same for programs.
Said = tuple[list[str], dict[str, Any]]


def main(argv: Sequence[str]) -> int:
    """The command `argv`, whose first word is its name; gives the exit code."""
    options = parse_arguments(argv)
    name = Path(argv[0]).name
    try:
        published = load_published()
        files = [read_result(path, published) for path in options.files]
        notes: Sequence[str] = ()
        if options.table:
            table = make_table(files, by=options.by)
            text, notes = FORMATS[options.table](table), table.notes
        else:
            lines, content = repeats(files) if options.repeats or len(files) > 2 else one_or_two(files)
            # ASCII, so that any terminal takes it, and a lone surrogate too.
            text = json.dumps(content, indent=1, allow_nan=False) if options.json else printable_lines(lines)
    except EvaError as error:
        print(f"{name}: {printable(str(error), limit=2000)}", file=sys.stderr)
        return 2
    print(text)
    for note in notes:
        print(f"{name}: {printable(note, limit=2000)}", file=sys.stderr)
    return UNFINISHED if any(file.coverage.partial for file in files) and not options.partial else 0


def one_or_two(files: Sequence[ResultFile]) -> Said:
    if len(files) == 1:
        return file_lines(files[0]), file_json(files[0])
    a, b = files
    compared, notes = compare(a, b), comparison_notes(a, b)
    named = [f"A: {a.path}, agent {a.agent}", f"B: {b.path}, agent {b.agent}"]
    return [*named, *notes, *comparison_lines(compared)], {**asdict(compared), "notes": notes}


def repeats(files: Sequence[ResultFile]) -> Said:
    """The files as repeats of one setting. Of an unfinished run there are no figures yet."""
    last = [file.last() for file in files]
    content: dict[str, Any] = {"files": [str(one.path) for one in last], "to_go": [one.score.to_go for one in last]}
    unfinished = [f"{line} in {one.path}" for one in last for line in partial_lines(one.score)]
    if unfinished:
        return unfinished, content
    measured, notes = measure_repeats(last), repeats_notes(last)
    return [*repeats_lines(measured), *notes], {**content, **asdict(measured), "notes": notes}


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
