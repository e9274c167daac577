"""Results -> one table for a paper, a page or a spreadsheet: a row per result, and per category where asked. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eva.scoring.categories import by_category
from eva.scoring.figures import caveats, partial_lines
from eva.scoring.published import Beside
from eva.scoring.result_file import ResultFile
from eva.scoring.score import Score, make_score
from eva.text import printable

# Of each column of numbers: its name and its form in a spreadsheet, and in a paper. Shares are in percent.
_COLUMNS = (
    ("n", "d", "n", "d"),
    ("accuracy_percent", ".4f", "Accuracy (%)", ".2f"),
    ("low_95_percent", ".4f", "95 % from", ".2f"),
    ("high_95_percent", ".4f", "to", ".2f"),
    ("published_percent", ".4f", "Published (%)", ".2f"),
    ("difference_points", ".4f", "Difference (points)", "+.2f"),
    ("rounds", ".4f", "Rounds", ".2f"),
    ("tokens", ".2f", "Tokens", ".0f"),
)
_NAME_LENGTH = 100
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&~#$:])")
_LATEX = {
    **{character: "\\" + character for character in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Behind the end of a row these would belong to it.
    **{character: f"{{{character}}}" for character in "[]*"},
}
# A spreadsheet takes a cell that starts so for a formula.
_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Table:
    """`names` are the names of each row, `numbers` its figures in the order of _COLUMNS, None where there is none.

    `notes` are what a reader must know of the results. They are no part of the table.
    """

    head: Sequence[str]
    names: Sequence[Sequence[str]]
    numbers: Sequence[Sequence[float | None]]
    notes: Sequence[str]

    def rows(self, escape: Callable[[str], str], *, paper: bool, number: Callable[[str], str] = str) -> list[list[str]]:
        """The cells as text, with the names of the columns first."""
        forms = [column[3 if paper else 1] for column in _COLUMNS]
        found = [[*map(escape, self.head if paper else map(str.lower, self.head))]]
        found[0] += [escape(column[2 if paper else 0]) for column in _COLUMNS]
        for names, numbers in zip(self.names, self.numbers, strict=True):
            cells = [escape(printable(name, limit=_NAME_LENGTH).strip()) for name in names]
            cells += ["" if one is None else number(f"{one:{form}}") for one, form in zip(numbers, forms, strict=True)]
            found.append(cells)
        return found


def make_table(files: Sequence[ResultFile], *, by: str | None) -> Table:
    """A row for each file, and `by` "category" one for each of its categories, in the order of the questions.

    The agents have a column where one of them is not EVA.
    """
    by_agent = any(file.agent != "eva" for file in files)
    head = ["Name", *(["Agent"] if by_agent else []), *(["Category"] if by else [])]
    names, numbers, notes = [], [], []
    for name, file in zip(_short([file.path for file in files]), files, strict=True):
        first = [name, *([file.agent] if by_agent else [])]
        notes += [f"{name}: {caveat}" for caveat in (*partial_lines(file.score), *caveats(file))]
        names.append([*first, *(["all"] if by else [])])
        numbers.append(_numbers(file.score, next(iter(file.beside), None)))
        lines = sorted(file.lines, key=lambda line: line.outcome.index)
        for category, group in by_category(lines, lambda line: line.categories).items() if by else ():
            names.append([*first, category])
            numbers.append(_numbers(make_score([line.outcome for line in group], file.coverage.to_go), None))
    return Table(head, names, numbers, notes)


def _short(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell the files apart: `lvbench`, `before/lvbench`, or the whole paths."""
    short = [path.stem.removeprefix("result_") or path.stem for path in paths]
    longer = [f"{path.absolute().parent.name}/{name}" for path, name in zip(paths, short, strict=True)]
    return next((names for names in (short, longer) if len(set(names)) == len(names)), [str(path) for path in paths])


def _numbers(score: Score, beside: Beside | None) -> list[float | None]:
    """Of an unfinished run, n is the number of its records."""
    low, high = score.interval_95 or (None, None)
    published, difference = (beside.accuracy, beside.difference) if beside else (None, None)
    shares = (score.accuracy, low, high, published, difference)
    percent = [None if share is None else 100 * share for share in shares]
    return [score.recorded, *percent, score.average_rounds, score.average_total_tokens]


def _write_csv(table: Table) -> str:
    text = io.StringIO()
    rows = table.rows(lambda name: f"'{name}" if name.startswith(_FORMULA) else name, paper=False)
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")


def _write_markdown(table: Table) -> str:
    head, *rows = table.rows(lambda name: _MARKDOWN.sub(r"\\\1", name), paper=True)
    rule = ["---"] * len(table.head) + ["---:"] * len(_COLUMNS)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _write_latex(table: Table) -> str:
    def escape(name: str) -> str:
        return "".join(_LATEX.get(character, character) for character in name)

    rows = table.rows(escape, paper=True, number=lambda number: f"${number}$")  # so that a minus is one
    head, *lines = (" & ".join(row) + r" \\" for row in rows)
    begin = rf"\begin{{tabular}}{{{'l' * len(table.head)}{'r' * len(_COLUMNS)}}}"
    top = [r"% needs \usepackage{booktabs}", begin, r"\toprule", head, r"\midrule"]
    return "\n".join([*top, *lines, r"\bottomrule", r"\end{tabular}"])


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": _write_markdown, "latex": _write_latex, "csv": _write_csv}
