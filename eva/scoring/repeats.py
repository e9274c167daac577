"""Several results of one setting -> how much its figures move by themselves. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

from eva.errors import EvaError
from eva.records.meta import differing
from eva.records.outcome import Outcome, same_answer
from eva.scoring.compare import pair_up
from eva.scoring.interval import Interval, share_interval, t_quantile
from eva.scoring.published import Figure
from eva.scoring.result_file import ResultFile
from eva.scoring.score import make_score

# Half of the last digit of a published figure, which is in percent with two decimals.
_ROUNDING = 0.00005


class NotRepeatsError(EvaError):
    """Results that are not of one setting. The message names the difference."""


@dataclass(frozen=True)
class Spread:
    """A figure of each of two runs or more. The standard deviation is that of one run, estimated from all (n - 1)."""

    runs: tuple[float, ...]
    mean: float
    standard_deviation: float
    range: Interval


@dataclass(frozen=True)
class PublishedRun:
    """A published accuracy, which is of one run, beside those of several: the difference is from their mean, and
    `prediction_95` is where one more run falls with 95 %, if the figures of runs are normally distributed."""

    source: str
    accuracy: float
    difference: float
    inside_range: bool
    prediction_95: Interval
    inside_prediction: bool


@dataclass(frozen=True)
class Repeats:
    """The figures over the questions that all runs have; `left_out` is the number of the others. The fields are the
    keys of `--json`.

    `interval_95` is that of the mean accuracy, for other questions of this kind. The indices of the questions stand by
    how many runs are right. `pass_at` maps k to the share of questions of which at least one of k runs is right.
    """

    runs: int
    common: int
    left_out: int
    accuracy: Spread
    interval_95: Interval | None
    average_rounds: Spread | None
    average_total_tokens: Spread | None
    always_right: tuple[int, ...]
    sometimes_right: tuple[int, ...]
    never_right: tuple[int, ...]
    majority_vote: float
    pass_at: dict[int, float]
    published: tuple[PublishedRun, ...]


def measure_repeats(results: Sequence[ResultFile]) -> Repeats:
    """Two results or more of finished runs. Raises DifferentQuestionsError and NotRepeatsError."""
    for result in results:
        pair_up(results[0], result)
    # Each repeat has a seed of its own. Where the settings are unknown nothing can be compared.
    known = [(one.path, {**one.meta.settings, "seed": None}) for one in results if one.meta and one.meta.settings]
    for (path, before), (other, now) in combinations(known, 2):
        for name in differing(before, now):
            raise NotRepeatsError(
                f"these are not repeats of one setting: {name} is {before.get(name)!r} in {path}, "
                f"{now.get(name)!r} in {other}"
            )
    common = sorted(set.intersection(*(set(result.samples) for result in results)))
    if not common:
        raise NotRepeatsError("these results have no question in common: no index is in all of them")
    rows = [[result.samples[index].outcome for result in results] for index in common]
    right = {index: sum(one.correct for one in row) for index, row in zip(common, rows, strict=True)}
    runs = len(results)
    scores = [make_score(column, 0) for column in zip(*rows, strict=True)]
    accuracy = spread([score.accuracy or 0.0 for score in scores])
    published = results[0].published
    # A published figure is over all questions of its dataset.
    figures = published.figures if published and set(common) >= set(range(published.rows)) else ()
    draws = sorted({1 << power for power in range(runs.bit_length())} | {runs})  # 1, 2, 4, 8, ... and all
    return Repeats(
        runs=runs,
        common=len(common),
        left_out=len(set().union(*(result.samples for result in results))) - len(common),
        accuracy=accuracy,
        interval_95=share_interval([row[0].video for row in rows], [right[index] / runs for index in common]),
        average_rounds=_spread_of_known([score.average_rounds for score in scores]),
        average_total_tokens=_spread_of_known([score.average_total_tokens for score in scores]),
        always_right=tuple(index for index in common if right[index] == runs),
        sometimes_right=tuple(index for index in common if 0 < right[index] < runs),
        never_right=tuple(index for index in common if not right[index]),
        majority_vote=fmean(majority_right(row) for row in rows),
        pass_at={k: fmean(pass_at_k(runs, count, k) for count in right.values()) for k in draws},
        published=tuple(_put_beside(figure, accuracy) for figure in figures),
    )


def spread(values: Sequence[float]) -> Spread:
    return Spread(tuple(values), fmean(values), stdev(values), Interval(min(values), max(values)))


def _spread_of_known(averages: Sequence[float | None]) -> Spread | None:
    """None where one run does not tell."""
    known = [average for average in averages if average is not None]
    return spread(known) if len(known) == len(averages) else None


def predict(runs: Spread) -> Interval:
    """Where one more run falls with 95 %."""
    count = len(runs.runs)
    half = t_quantile(0.975, count - 1) * runs.standard_deviation * math.sqrt(1 + 1 / count)
    return Interval(runs.mean - half, runs.mean + half)


def _put_beside(figure: Figure, runs: Spread) -> PublishedRun:
    def inside(ends: Interval) -> bool:
        return ends.low - _ROUNDING <= figure.accuracy <= ends.high + _ROUNDING

    one_more, difference = predict(runs), runs.mean - figure.accuracy
    return PublishedRun(figure.source, figure.accuracy, difference, inside(runs.range), one_more, inside(one_more))


def pass_at_k(runs: int, right: int, k: int) -> float:
    """The probability that at least one of `k` runs is right, drawn without return from `runs` of which `right` are.

    Over independent runs this estimates 1 - (1 - p)^k without bias, which 1 - (1 - right / runs)^k does not.
    """
    return 1 - math.comb(runs - right, k) / math.comb(runs, k)


def majority_right(row: Sequence[Outcome]) -> float:
    """Whether the most frequent answer of a question is right. An empty answer has no vote.

    Between equally frequent answers a draw decides, and this is the expected value of the draw.
    """
    votes = Counter(one.answer.strip().upper() for one in row if one.answer.strip())
    most = max(votes.values(), default=0)
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(same_answer(row[0].ground_truth, answer) for answer in winners) / max(1, len(winners))
