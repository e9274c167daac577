"""Two results -> the figures that the report puts first when it compares them."""

from __future__ import annotations

from pathlib import Path

from eva.report.head import Known
from eva.scoring.compare import Change, Comparison
from eva.scoring.compare_files import compare_sides, partial_lines, read_side, same_settings, side_notes
from eva.scoring.interval import Interval

Figures = dict[str, list[list[str]] | list[str]]


def paired_figures(ours: Path, theirs: Path, known: Known) -> Figures:
    """`figures` as (name, value), and `notes`, in which A is ours. Differences are ours minus theirs.

    Raises EvaError where the two have no question in common, or different ones under one index.
    """
    a, b = read_side(ours, known.published), read_side(theirs, known.published)
    compared = compare_sides(b, a)
    return {
        "figures": [*_figures(compared), *(_noise(compared) if same_settings(a, b) else [])],
        "notes": [*partial_lines(a, b), *side_notes(a, b)],
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
    """Of the same settings twice, what differs is chance: the noise floor."""
    count = compared.flips.count
    return [["Same settings: another answer", f"{compared.answers_changed / count:.2%} of the questions"]]


def _change(change: Change | None, form: str) -> str:
    if change is None:
        return "not known"
    return f"{change.b:{form}} against {change.a:{form}}"


def _interval(interval: Interval | None, scale: float, form: str) -> str:
    return f" ({scale * interval.low:+{form}} to {scale * interval.high:+{form}})" if interval else ""
