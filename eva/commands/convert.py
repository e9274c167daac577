"""Convert a table of multiple-choice questions about videos into an annotation file for eval-eva.py.

Each line of the output is one question, with its options as lines "A. ..." below it. Rows that are not such questions
are left out; stderr says how many and why.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eva.dataset.convert import ANSWER_KINDS, Columns, Dropped, convert_rows
from eva.dataset.items import KNOWN_KEYS
from eva.dataset.tables import FIRST_ROW, READERS
from eva.errors import EvaError
from eva.files import replace_text

EXAMPLES_PER_REASON = 3


def main(argv: Sequence[str]) -> int:
    """The command `argv`, whose first word is its name. Exit code 0 when the output was written, 1 when it was not,
    2 on unusable arguments."""
    parser = argument_parser(Path(argv[0]).name)
    args = parser.parse_args(argv[1:])
    columns = Columns(args.video, args.question, args.options, args.answer, args.answer_as, args.keep)
    taken = sorted(KNOWN_KEYS.intersection(args.keep))
    if taken:
        parser.error(f"--keep {', '.join(taken)}: the annotation format uses that name itself")
    if args.output.resolve() == args.input.resolve():
        parser.error("INPUT and --output are the same file")
    try:
        rows = READERS[args.format](args.input, columns.all())
        outcomes = list(convert_rows(rows, columns, first_row=FIRST_ROW[args.format]))
        return report_and_write(outcomes, args.output, strict=args.strict)
    except (csv.Error, UnicodeDecodeError) as error:
        print(f"{args.input} is not readable as {args.format} in UTF-8: {error}", file=sys.stderr)
    except (EvaError, OSError) as error:
        print(error, file=sys.stderr)
    return 1


def argument_parser(name: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=name,
        description=__doc__,
        epilog="Exit codes: 0 the output is written; 1 it is not (unusable input, no question in it, or a bad row "
        "with --strict); 2 unusable arguments.",
    )
    parser.add_argument("input", type=Path, metavar="INPUT")
    parser.add_argument("--format", choices=READERS, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--video", required=True, metavar="COL", help="the path of the video under the video root")
    parser.add_argument("--question", required=True, metavar="COL")
    parser.add_argument(
        "--options", required=True, metavar="COL[,COL...]", type=column_names, help="one with a list, or one per option"
    )
    parser.add_argument("--answer", required=True, metavar="COL")
    parser.add_argument(
        "--answer-as", choices=ANSWER_KINDS, default="letter", help="what the answer column contains (%(default)s)"
    )
    parser.add_argument("--keep", default=(), metavar="COL,...", type=column_names, help="further columns to keep")
    parser.add_argument("--strict", action="store_true", help="write nothing if a row is not a question")
    return parser


def column_names(text: str) -> tuple[str, ...]:
    """A comma-separated list of different, non-empty names."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different column names")
    return names


def report_and_write(outcomes: list[str | Dropped], output: Path, *, strict: bool) -> int:
    """Say on stderr which rows were dropped and why, write the others, and return the exit code."""
    lines = [outcome for outcome in outcomes if isinstance(outcome, str)]
    dropped = [outcome for outcome in outcomes if isinstance(outcome, Dropped)]
    print(f"{len(lines)} of {len(outcomes)} rows converted, {len(dropped)} dropped", file=sys.stderr)
    for reason, count in Counter(row.error.reason for row in dropped).most_common():
        examples = [f"row {row.row}: {row.error}" for row in dropped if row.error.reason == reason]
        print(f"  {count} x {reason} ({'; '.join(examples[:EXAMPLES_PER_REASON])})", file=sys.stderr)
    if not lines or (strict and dropped):
        print(f"{output} is not written: {'a row was dropped' if lines else 'no row is left'}", file=sys.stderr)
        return 1
    replace_text(output, "".join(f"{line}\n" for line in lines))
    return 0
