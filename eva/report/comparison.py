"""Two results -> the figures at the top of a report that compares them."""

from __future__ import annotations

from eva.scoring.compare import Change, Comparison
from eva.scoring.compare_files import ComparedResult, compare_results, note_lines, partial_lines, same_settings
from eva.scoring.interval import Interval

Figures = dict[str, list[list[str]] | list[str]]


def comparison_figures(ours: ComparedResult, theirs: ComparedResult) -> Figures:
    """`figures` as (name, value), and `notes`, in which A is ours. Differences are ours minus theirs.

    Raises EvaError where the two have no question in common, or different ones under one index.
    """
    compared = compare_results(theirs, ours)
    return {
        "figures": [*_figures(compared), *(_noise(compared) if same_settings(ours, theirs) else [])],
        "notes": [*partial_lines(ours, theirs), *note_lines(ours, theirs)],
    }


def _figures(compared: Comparison) -> list[list[str]]:
    flips = compared.flips
    return [
        ["Questions in both", f"{flips.count:,}"],
        ["Accuracy", f"{flips.accuracy.b:.2%} against {flips.accuracy.a:.2%}"],
        [
            "Difference",
            f"{100 * flips.accuracy.difference:+.2f} points{_interval(flips.accuracy.interval, 100, '.2f')}",
        ],
        ["Gained, lost", f"{len(flips.only_b)}, {len(flips.only_a)}"],
        *([] if flips.p_value is None else [["McNemar's exact test", f"p = {flips.p_value:.3g}"]]),
        ["Rounds", _change(compared.rounds, ".2f")],
        ["Tokens", _change(compared.tokens, ",.0f")],
    ]


def _noise(compared: Comparison) -> list[list[str]]:
    """The noise floor: two runs with the same settings differ by chance alone."""
    count = compared.flips.count
    return [["Same settings: another answer", f"{compared.answers_changed / count:.2%} of the questions"]]


def _change(change: Change | None, form: str) -> str:
    if change is None:
        return "not known"
    return f"{change.b:{form}} against {change.a:{form}}"


def _interval(interval: Interval | None, scale: float, form: str) -> str:
    return f" ({scale * interval.low:+{form}} to {scale * interval.high:+{form}})" if interval else ""
