"""What accuracy.py says of several results of one setting. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.meta import known_weights
from eva.scoring.compare_files import ComparedResult, named_so_far_lines
from eva.scoring.published import Figure, caveat_lines, coverage_lines
from eva.scoring.repeats import Repeats, Spread
from eva.scoring.summary import interval_json, interval_line

# Half of the last digit of a published figure, which is in percent with two decimals.
_ROUNDING = 0.00005


def unfinished_lines(results: Sequence[ComparedResult]) -> list[str]:
    """Of each run that has not finished, what can be said so far; [] where all have finished."""
    unfinished = [(str(one.origin.path), one.score) for one in results if one.partial]
    return [line for path, score in unfinished for line in named_so_far_lines(path, score)]


def repeats_lines(repeats: Repeats, results: Sequence[ComparedResult]) -> list[str]:
    """For people."""
    apart = f" ({repeats.left_out} are not in all of them)" if repeats.left_out else ""
    return [
        f"Runs of one setting: {repeats.runs}, questions in all of them: {repeats.questions}{apart}",
        f"Accuracy: {_percent_spread(repeats.accuracy)}",
        f"Mean accuracy, {interval_line(repeats.interval)}",
        f"Rounds: {_spread(repeats.rounds, '.3f')}",
        f"Total tokens: {_spread(repeats.tokens, '.1f')}",
        f"Right in every run: {len(repeats.always)}, in some: {len(repeats.sometimes)}, in none: {len(repeats.never)}",
        f"Majority vote: {repeats.majority:.2%}",
        ", ".join(f"pass@{k}: {share:.2%}" for k, share in repeats.pass_at.items()),
        *(_published_line(figure, repeats.accuracy) for figure in _published(results)),
        *repeats_notes(repeats, results),
    ]


def repeats_json(repeats: Repeats, results: Sequence[ComparedResult]) -> dict[str, Any]:
    """The same for programs: accuracies and shares are fractions."""
    return {
        "runs": repeats.runs,
        "common": repeats.questions,
        "left_out": repeats.left_out,
        "accuracy": {**_spread_json(repeats.accuracy), "interval_95": interval_json(repeats.interval)},
        "average_rounds": _spread_json(repeats.rounds) or None,
        "average_total_tokens": _spread_json(repeats.tokens) or None,
        "always_right": list(repeats.always),
        "sometimes_right": list(repeats.sometimes),
        "never_right": list(repeats.never),
        "majority_vote": repeats.majority,
        "pass_at": {str(k): share for k, share in repeats.pass_at.items()},
        "published": [_published_json(figure, repeats.accuracy) for figure in _published(results)],
        "notes": repeats_notes(repeats, results),
    }


def repeats_notes(repeats: Repeats, results: Sequence[ComparedResult]) -> list[str]:
    """Why the runs differ, and what limits their figures."""
    failed = sum(sample.outcome.failure == INFRASTRUCTURE for one in results for sample in one.samples.values())
    lines = [f"{failed} samples ended by a failure of the infrastructure, and count as wrong"] if failed else []
    origins, published = [one.origin for one in results], results[0].origin.published
    caveats = (line for one in origins if one.meta for line in caveat_lines(one.meta, one.published))
    covered = coverage_lines(published, repeats.indices) if published else []
    known = [_cause(results), *_unknown_weights(results), *_same_seeds(results)]
    return [*known, *lines, *covered, *dict.fromkeys(caveats)]


def _cause(results: Sequence[ComparedResult]) -> str:
    known = [one.origin.meta.settings for one in results if one.origin.meta and one.origin.meta.settings]
    if len(known) < len(results):
        return "Not known whether these are of one setting, and at which temperature: a meta file is missing"
    temperature = known[0].get("temperature", 0)
    if not temperature:
        return "Temperature 0: these runs differ by the noise of the server alone (rounding, batches)"
    return f"Temperature {temperature}: these runs differ by the draws of the server, and by its noise"


def _unknown_weights(results: Sequence[ComparedResult]) -> list[str]:
    unknown = sum(not known_weights(one.origin.meta.settings) for one in results if one.origin.meta)
    return [f"The weights of {unknown} of these runs are unknown, and not compared"] if unknown else []


def _same_seeds(results: Sequence[ComparedResult]) -> list[str]:
    seeds = [one.origin.meta.settings.get("seed") for one in results if one.origin.meta]
    given = [seed for seed in seeds if seed is not None]
    if len(set(map(str, given))) == len(given):
        return []
    return ["Two of these runs have the same seed: their draws are the same, so they say less than two runs"]


def _published(results: Sequence[ComparedResult]) -> Sequence[Figure]:
    entry = results[0].origin.published
    return entry.figures if entry else ()


def _published_line(figure: Figure, accuracy: Spread) -> str:
    found, one_more = _published_json(figure, accuracy), accuracy.predict()
    lies = {True: "inside", False: "outside"}
    return (
        f"Published ({figure.source}): {figure.accuracy:.2%}, mean difference {100 * found['difference']:+.2f} points; "
        f"{lies[found['inside_range']]} the range of the runs; {lies[found['inside_prediction']]} the 95 % interval of "
        f"one more run ({one_more.low:.2%} to {one_more.high:.2%})"
    )


def _published_json(figure: Figure, accuracy: Spread) -> dict[str, Any]:
    one_more, ends = accuracy.predict(), accuracy.range
    return {
        "source": figure.source,
        "accuracy": figure.accuracy,
        "difference": accuracy.mean - figure.accuracy,
        "inside_range": ends.low - _ROUNDING <= figure.accuracy <= ends.high + _ROUNDING,
        "prediction_95": interval_json(one_more),
        "inside_prediction": one_more.low - _ROUNDING <= figure.accuracy <= one_more.high + _ROUNDING,
    }


def _percent_spread(spread: Spread) -> str:
    ends = f"{spread.range.low:.2%} to {spread.range.high:.2%}"
    return f"mean {spread.mean:.2%}, standard deviation {100 * spread.deviation:.2f} points, range {ends}"


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "not known of all runs"
    figures = (spread.mean, spread.deviation, spread.range.low, spread.range.high)
    mean, deviation, low, high = (format(figure, form) for figure in figures)
    return f"mean {mean}, standard deviation {deviation}, range {low} to {high}"


def _spread_json(spread: Spread | None) -> dict[str, Any]:
    if spread is None:
        return {}
    return {
        "runs": list(spread.values),
        "mean": spread.mean,
        "standard_deviation": spread.deviation,
        "range": interval_json(spread.range),
    }
