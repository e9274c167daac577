"""Convert a table of multiple-choice questions about videos into an annotation file for eval-eva.py.

Each line of the output is one question, with its options as lines "A. ..." below it. Rows that are not such questions
are left out; stderr says how many and why.
"""

from __future__ import annotations

import argparse
import codecs
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eva.dataset.convert import ANSWER_KINDS, KINDS, Columns, RowError, convert_rows, read_table
from eva.dataset.items import KNOWN_KEYS
from eva.errors import EvaError
from eva.files import replace_text

EXAMPLES_PER_REASON = 3


def main(argv: Sequence[str]) -> int:
    """The command `argv`, whose first word is its name. Exit code 0 when the output was written, 1 when it was not,
    2 on unusable arguments."""
    parser = argparse.ArgumentParser(
        prog=Path(argv[0]).name,
        description=__doc__,
        epilog="Exit codes: 0 the output is written; 1 it is not (unusable input, no question in it, or a bad row "
        "with --strict); 2 unusable arguments.",
    )
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT")
    add("--format", choices=KINDS, required=True)
    add("-o", "--output", type=Path, required=True)
    add("--video", required=True, metavar="COL", help="the path of the video under the video root")
    add("--question", required=True, metavar="COL")
    options = "one with a list, or one per option"
    add("--options", required=True, metavar="COL[,COL...]", type=column_names, help=options)
    add("--answer", required=True, metavar="COL")
    kind = "what the answer column contains (%(default)s)"
    add("--answer-as", choices=ANSWER_KINDS, default="letter", help=kind)
    add("--keep", default=(), metavar="COL,...", type=column_names, help="further columns to keep")
    add("--encoding", type=encoding, metavar="NAME", help="what a text is in that is not UTF-8, such as cp1252")
    add("--strict", action="store_true", help="write nothing if a row is not a question")
    args = parser.parse_args(argv[1:])
    columns = Columns(args.video, args.question, args.options, args.answer, args.answer_as, args.keep)
    taken = sorted(KNOWN_KEYS.intersection(args.keep))
    if taken:
        parser.error(f"--keep {', '.join(taken)}: the annotation format uses that name itself")
    if args.output.resolve() == args.input.resolve():
        parser.error("INPUT and --output are the same file")
    try:
        rows = read_table(args.input, args.format, columns.names, args.encoding)
        return report_and_write(list(convert_rows(rows, columns)), args.output, strict=args.strict)
    except (EvaError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def column_names(text: str) -> tuple[str, ...]:
    """A comma-separated list of different, non-empty names."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different column names")
    return names


def encoding(text: str) -> str:
    """The name of an encoding of text."""
    try:
        return codecs.lookup(text).name
    except LookupError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def report_and_write(outcomes: list[str | RowError], output: Path, *, strict: bool) -> int:
    """Say on stderr which rows were dropped and why, write the others, and return the exit code."""
    lines = [outcome for outcome in outcomes if isinstance(outcome, str)]
    dropped = [outcome for outcome in outcomes if isinstance(outcome, RowError)]
    print(f"{len(lines)} of {len(outcomes)} rows converted, {len(dropped)} dropped", file=sys.stderr)
    for reason, count in Counter(row.reason for row in dropped).most_common():
        examples = [f"row {row.row}: {row}" for row in dropped if row.reason == reason]
        print(f"  {count} x {reason} ({'; '.join(examples[:EXAMPLES_PER_REASON])})", file=sys.stderr)
    if not lines or (strict and dropped):
        print(f"{output} is not written: {'a row was dropped' if lines else 'no row is left'}", file=sys.stderr)
        return 1
    replace_text(output, "".join(f"{line}\n" for line in lines))
    return 0
