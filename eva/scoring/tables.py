"""Results -> one table for a paper, a page or a spreadsheet: a row per result, and per category where asked. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eva.records.outcome import Outcome
from eva.scoring.assessment import Assessment
from eva.scoring.compare import MAX_CATEGORIES, Answered
from eva.scoring.compare_files import AnsweredFile
from eva.scoring.score import Score
from eva.text import printable

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
class Row:
    """One result of an agent, or one `category` of it ('': all of it), beside the published accuracy, a fraction.

    There is no `difference` where the result covers only a part of the dataset: the published figure is over all of it.
    """

    name: str
    agent: str
    category: str
    score: Score
    published: float | None = None
    difference: float | None = None

    @property
    def count(self) -> int:
        """The denominator of the accuracy; the number of records of an unfinished run, which has no accuracy."""
        return self.score.recorded if self.score.partial else self.score.total


@dataclass(frozen=True)
class Table:
    """`notes` are what a reader must know of the results. They are no part of the table."""

    rows: Sequence[Row]
    notes: Sequence[str]
    by_category: bool

    @property
    def by_agent(self) -> bool:
        """Whether the agents have a column: not all of them are EVA."""
        return any(row.agent != "eva" for row in self.rows)

    @property
    def name_head(self) -> list[str]:
        """The names of the columns before the figures."""
        return ["Name", *(["Agent"] if self.by_agent else []), *(["Category"] if self.by_category else [])]


def make_table(files: Sequence[AnsweredFile], *, by_category: bool) -> Table:
    rows: list[Row] = []
    notes: list[str] = []
    for name, file in zip(_names([file.origin.path for file in files]), files, strict=True):
        whole = Assessment.of(file.origin, [sample.outcome for sample in file.lines])
        rows.append(_whole_row(name, whole))
        notes += [f"{name}: {caveat}" for caveat in whole.caveats()]
        if by_category:
            groups = _by_category(file.lines)
            scores = {group: Score(groups[group], whole.score.to_go) for group in _largest(groups)}
            rows += [Row(name, whole.agent, group, score) for group, score in scores.items()]
            if len(groups) > MAX_CATEGORIES:
                notes.append(f"{name}: {len(groups) - MAX_CATEGORIES} smaller categories are left out")
    return Table(rows, notes, by_category)


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell the files apart: `lvbench`, `before/lvbench`, or the whole paths."""
    short = [path.stem.removeprefix("result_") or path.stem for path in paths]
    longer = [f"{path.absolute().parent.name}/{name}" for path, name in zip(paths, short, strict=True)]
    return next((names for names in (short, longer) if len(set(names)) == len(names)), [str(path) for path in paths])


def _whole_row(name: str, whole: Assessment) -> Row:
    entry, accuracy = whole.origin.published, whole.score.accuracy
    if entry is None:
        return Row(name, whole.agent, "", whole.score)
    figure = entry.figures[0].accuracy
    comparable = accuracy is not None and whole.indices >= set(range(entry.rows))
    difference = accuracy - figure if comparable and accuracy is not None else None
    return Row(name, whole.agent, "", whole.score, figure, difference)


def _by_category(lines: Sequence[Answered]) -> dict[str, list[Outcome]]:
    """The outcomes of each category, in the order of the questions."""
    groups: dict[str, list[Outcome]] = {}
    for sample in sorted(lines, key=lambda sample: sample.outcome.index):
        for name in sample.categories:
            groups.setdefault(name, []).append(sample.outcome)
    return groups


def _largest(groups: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """The names of the MAX_CATEGORIES largest groups, in the order of `groups`."""
    largest = set(sorted(groups, key=lambda name: -len(groups[name]))[:MAX_CATEGORIES])
    return [name for name in groups if name in largest]


# --- the three forms


def _write_csv(table: Table) -> str:
    """Accuracies in percent, differences in percentage points, each number in a cell of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ("n", "accuracy_percent", "low_95_percent", "high_95_percent", "published_percent", "difference_points")
    writer.writerow([*map(str.lower, table.name_head), *keys, "rounds", "tokens"])
    for row in table.rows:
        score, interval = row.score, row.score.interval
        fractions = (score.accuracy, *((interval.low, interval.high) if interval else (None, None)))
        numbers = [_number(value, 100, ".4f") for value in (*fractions, row.published, row.difference)]
        averages = [_number(score.average_rounds, 1, ".4f"), _number(score.average_tokens, 1, ".2f")]
        writer.writerow([*_name_cells(table, row, _spreadsheet), row.count, *numbers, *averages])
    return text.getvalue().rstrip("\n")


def _write_markdown(table: Table) -> str:
    head, names = _head(table), len(table.name_head)
    rule = ["---"] * names + ["---:"] * (len(head) - names)
    cells = [[*_name_cells(table, row, _markdown), *_figures(row)] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *cells))


def _write_latex(table: Table) -> str:
    head = [_latex(cell) for cell in _head(table)]
    names = len(table.name_head)
    cells = [
        [*_name_cells(table, row, _latex), *(f"${cell}$" if cell else "" for cell in _figures(row))]
        for row in table.rows
    ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(head) - names)}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in cells),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": _write_markdown, "latex": _write_latex, "csv": _write_csv}


def _head(table: Table) -> list[str]:
    figures = ("n", "Accuracy (%)", "Published (%)", "Difference (points)", "Rounds", "Tokens")
    return [*table.name_head, *figures]


def _figures(row: Row) -> list[str]:
    score, interval = row.score, row.score.interval
    between = f" [{100 * interval.low:.2f}, {100 * interval.high:.2f}]" if interval else ""
    return [
        str(row.count),
        _number(score.accuracy, 100, ".2f") + between,
        _number(row.published, 100, ".2f"),
        _number(row.difference, 100, "+.2f"),
        _number(score.average_rounds, 1, ".2f"),
        _number(score.average_tokens, 1, ".0f"),
    ]


def _number(value: float | None, scale: float, form: str) -> str:
    return "" if value is None else format(scale * value, form)


def _name_cells(table: Table, row: Row, escape: Callable[[str], str]) -> list[str]:
    agent, category = [row.agent] if table.by_agent else [], [row.category or "all"] if table.by_category else []
    names = [row.name, *agent, *category]
    return [escape(printable(name, limit=_NAME_LENGTH).strip()) for name in names]


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _spreadsheet(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
