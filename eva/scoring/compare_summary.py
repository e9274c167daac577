"""What accuracy.py says of a comparison of two results. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eva.scoring.compare import Change, Comparison, Flips
from eva.scoring.interval import Interval
from eva.scoring.summary import interval_json
from eva.text import printable

# Why there is no interval.
ONE_VIDEO = "fewer than two videos"
UNFINISHED = "a run has not finished"


def comparison_lines(comparison: Comparison, *, agents: tuple[str, str], same_settings: bool) -> list[str]:
    """For people. `agents` are those of A and B. Differences are B minus A."""
    whole = comparison.flips
    a, b = (f" ({agent})" if agents[0] != agents[1] else "" for agent in agents)
    none = UNFINISHED if comparison.partial else ONE_VIDEO
    return [
        f"Questions in both: {whole.count}"
        f" (only in A: {len(comparison.missing_in_b)}, only in B: {len(comparison.missing_in_a)})",
        f"Accuracy of A{a}: {whole.accuracy.a:.4%}",
        f"Accuracy of B{b}: {whole.accuracy.b:.4%}",
        f"Difference: {_points(whole.accuracy, none)}",
        *([] if whole.p_value is None else [f"McNemar's exact test: p = {whole.p_value:.4g}", power_line(whole)]),
        _flips_line("Right only in A", whole.only_a),
        _flips_line("Right only in B", whole.only_b),
        _change_line("Rounds", comparison.rounds, none),
        _change_line("Total tokens", comparison.tokens, none),
        _change_line("Visual tokens", comparison.visual_tokens, none),
        *_failed_lines(comparison.failed),
        *_category_lines(comparison, none),
        *(_noise_lines(comparison) if same_settings else []),
    ]


def comparison_json(comparison: Comparison, *, agents: tuple[str, str], same_settings: bool) -> dict[str, Any]:
    """The same for programs: accuracies and shares are fractions, differences are B minus A."""
    return {
        "agents": {"a": agents[0], "b": agents[1]},
        "common": comparison.flips.count,
        "only_in_a": list(comparison.missing_in_b),
        "only_in_b": list(comparison.missing_in_a),
        **_flips_json(comparison.flips),
        "average_rounds": _count_json(comparison.rounds),
        "average_total_tokens": _count_json(comparison.tokens),
        "average_visual_tokens": _count_json(comparison.visual_tokens),
        "exceptions": {"a": comparison.failed[0], "b": comparison.failed[1]},
        "answers_changed": comparison.answers_changed,
        "categories": {name: {"common": part.count, **_flips_json(part)} for name, part in comparison.categories},
        "categories_left_out": comparison.categories_left_out,
        "noise_floor": _noise(comparison) if same_settings else None,
    }


def power_line(flips: Flips) -> str:
    """What a difference that was not found says: only that it is not as large as this."""
    smallest = flips.smallest_difference
    shown = f"{100 * smallest:.2f} points" if smallest else "not known, the pairs do not vary, or are of one video"
    return (
        f"Smallest difference that these questions could have shown (80 % power, paired, clustered by video): {shown}"
    )


def _points(accuracy: Change, none: str) -> str:
    return f"{100 * accuracy.difference:+.2f} points, {_between(accuracy.interval, 100, '.2f', none)}"


def _between(interval: Interval | None, scale: float, form: str, none: str) -> str:
    """`none` is what is said where there is no interval: the reason."""
    if interval is None:
        return f"no interval ({none})"
    low, high = (format(scale * end, "+" + form) for end in (interval.low, interval.high))
    return f"95 % interval, clustered by video: {low} to {high}"


def _flips_line(label: str, indices: Sequence[int]) -> str:
    return f"{label}: {len(indices)}" + (f" (indices {', '.join(map(str, indices))})" if indices else "")


def _change_line(label: str, change: Change | None, none: str) -> str:
    if change is None:
        return f"{label}: not known of any question in both"
    return f"{label}: {change.a:.4f} in A, {change.b:.4f} in B, difference {change.difference:+.4f}, " + _between(
        change.interval, 1, ".4f", none
    )


def _failed_lines(failed: tuple[int, int]) -> list[str]:
    if not any(failed):
        return []
    return [f"Exceptions, which say nothing of the agent and count as wrong: {failed[0]} in A, {failed[1]} in B"]


def _category_lines(comparison: Comparison, none: str) -> list[str]:
    if not comparison.categories:
        return []
    tested = "" if comparison.partial else " (p values are not corrected for how many there are)"
    lines = [f"By category{tested}:"]
    lines += [f"  {printable(name, limit=60)}: {_part(part, none)}" for name, part in comparison.categories]
    if comparison.categories_left_out:
        lines.append(f"  {comparison.categories_left_out} smaller categories are left out")
    return lines


def _part(part: Flips, none: str) -> str:
    p_value = "" if part.p_value is None else f", p = {part.p_value:.4g}"
    return (
        f"n = {part.count}, {part.accuracy.a:.2%} in A, {part.accuracy.b:.2%} in B, {_points(part.accuracy, none)}, "
        f"right only in A {len(part.only_a)}, only in B {len(part.only_b)}{p_value}"
    )


def _noise_lines(comparison: Comparison) -> list[str]:
    count, noise = comparison.flips.count, _noise(comparison)
    return [
        "Both were made with the same settings, so this is the noise floor:",
        f"  Answer changed: {comparison.answers_changed}/{count} = {noise['answer_changed']:.4%}",
        f"  Right or wrong changed: {comparison.flips.total}/{count} = {noise['correctness_changed']:.4%}",
    ]


def _noise(comparison: Comparison) -> dict[str, float]:
    count = comparison.flips.count
    return {
        "answer_changed": comparison.answers_changed / count,
        "correctness_changed": comparison.flips.total / count,
    }


def _flips_json(flips: Flips) -> dict[str, Any]:
    return {
        "accuracy": _change_json(flips.accuracy),
        "mcnemar_p": flips.p_value,
        "smallest_difference": flips.smallest_difference,
        "right_only_in_a": list(flips.only_a),
        "right_only_in_b": list(flips.only_b),
    }


def _count_json(change: Change | None) -> dict[str, Any] | None:
    return _change_json(change) if change else None


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "a": change.a,
        "b": change.b,
        "difference": change.difference,
        "interval_95": interval_json(change.interval),
    }
