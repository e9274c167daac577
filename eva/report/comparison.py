"""Two results -> the figures at the top of a report that compares them."""

from __future__ import annotations

from eva.scoring.compare import Change, Comparison
from eva.scoring.compare_files import ComparedResult, compare_results, note_lines, same_settings
from eva.scoring.interval import Interval
from eva.scoring.summary import so_far_line

Figures = dict[str, list[list[str]] | list[str]]


def comparison_figures(before: ComparedResult, now: ComparedResult, names: tuple[str, str]) -> Figures:
    """`figures` as (name, value), and `notes`; `names` are those of the two on the page. Differences are now minus
    before.

    Raises EvaError where the two have no question in common, or different ones under one index.
    """
    compared = compare_results(before, now)
    unfinished = [(name, one.score) for name, one in zip(names, (before, now), strict=True) if one.partial]
    noise = _noise(compared) if same_settings(before, now) else []
    return {
        "figures": [*_agents(before.agent, now.agent), *_figures(compared), *noise],
        "notes": [
            *(f"{so_far_line(score)} ({name}), so there is no interval" for name, score in unfinished),
            *note_lines(before, now, names),
        ],
    }


def _agents(before: str, now: str) -> list[list[str]]:
    """Where they differ."""
    return [["Agent", f"{before} → {now}"]] if before != now else []


def _figures(compared: Comparison) -> list[list[str]]:
    flips = compared.flips
    return [
        ["Questions in both", f"{flips.count:,}"],
        ["Accuracy", f"{flips.accuracy.a:.2%} → {flips.accuracy.b:.2%}"],
        [
            "Difference",
            f"{100 * flips.accuracy.difference:+.2f} points{_interval(flips.accuracy.interval, 100, '.2f')}",
        ],
        ["Now right, no longer right", f"{len(flips.only_b)}, {len(flips.only_a)}"],
        *([] if flips.p_value is None else [["McNemar's exact test", f"p = {flips.p_value:.3g}"]]),
        ["Rounds", _change(compared.rounds, ".2f")],
        ["Tokens", _change(compared.tokens, ",.0f")],
        *([] if compared.visual_tokens is None else [["Visual tokens", _change(compared.visual_tokens, ",.0f")]]),
    ]


def _noise(compared: Comparison) -> list[list[str]]:
    """The noise floor: two runs with the same settings differ by chance alone."""
    count = compared.flips.count
    return [["Same settings: another answer", f"{compared.answers_changed / count:.2%} of the questions"]]


def _change(change: Change | None, form: str) -> str:
    if change is None:
        return "not known"
    return f"{change.a:{form}} → {change.b:{form}}"


def _interval(interval: Interval | None, scale: float, form: str) -> str:
    return f" ({scale * interval.low:+{form}} to {scale * interval.high:+{form}})" if interval else ""
