"""Several results of one setting -> how much its figures move by themselves. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from eva.errors import EvaError
from eva.records.meta import differing
from eva.records.outcome import Outcome, same_answer
from eva.scoring.compare import pair_up
from eva.scoring.compare_files import ComparedResult
from eva.scoring.interval import Interval, share_interval
from eva.scoring.score import Score


class NotRepeatsError(EvaError):
    """Results that are not of one setting. The message names the difference."""


@dataclass(frozen=True)
class Spread:
    """A figure of each run, two runs or more."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation of one run, estimated from all (n - 1)."""
        return stdev(self.values)

    @property
    def range(self) -> Interval:
        return Interval(min(self.values), max(self.values))

    def predict(self) -> Interval:
        """Where one more run falls with 95 %, if the figures of runs are normally distributed."""
        from scipy.stats import t  # noqa: PLC0415  takes a second to import, and not every caller comes here

        count = len(self.values)
        half = float(t.ppf(0.975, count - 1)) * self.deviation * math.sqrt(1 + 1 / count)
        return Interval(self.mean - half, self.mean + half)


@dataclass(frozen=True)
class Repeats:
    """The figures over the questions that all runs have; `left_out` is the number of the others.

    `interval` is that of the mean accuracy, for other questions of this kind. `always`, `sometimes` and `never` are the
    indices of questions by how many runs are right. `pass_at` maps k to the share of questions of which at least one of
    k runs is right.
    """

    runs: int
    left_out: int
    accuracy: Spread
    rounds: Spread | None
    tokens: Spread | None
    interval: Interval | None
    always: tuple[int, ...]
    sometimes: tuple[int, ...]
    never: tuple[int, ...]
    majority: float
    pass_at: dict[int, float]

    @property
    def indices(self) -> tuple[int, ...]:
        return (*self.always, *self.sometimes, *self.never)

    @property
    def questions(self) -> int:
        return len(self.indices)


def measure_repeats(results: Sequence[ComparedResult]) -> Repeats:
    """Two results or more of finished runs. Raises DifferentQuestionsError and NotRepeatsError."""
    for result in results:
        pair_up(results[0].samples, result.samples)
    for one, other in combinations(results, 2):
        _check_settings(one, other)
    common = sorted(set.intersection(*(set(result.samples) for result in results)))
    if not common:
        raise NotRepeatsError("these results have no question in common: no index is in all of them")
    rows = [[result.samples[index].outcome for result in results] for index in common]
    right = {index: sum(one.correct for one in row) for index, row in zip(common, rows, strict=True)}
    runs = len(results)
    scores = [Score(column, 0) for column in zip(*rows, strict=True)]
    return Repeats(
        runs=runs,
        left_out=len(set().union(*(result.samples for result in results))) - len(common),
        accuracy=Spread(tuple(score.accuracy or 0.0 for score in scores)),
        rounds=_spread([score.average_rounds for score in scores]),
        tokens=_spread([score.average_tokens for score in scores]),
        interval=share_interval([row[0].video for row in rows], [right[index] / runs for index in common]),
        always=tuple(index for index in common if right[index] == runs),
        sometimes=tuple(index for index in common if 0 < right[index] < runs),
        never=tuple(index for index in common if not right[index]),
        majority=fmean(majority_right(row) for row in rows),
        pass_at={k: fmean(pass_at_k(runs, count, k) for count in right.values()) for k in _draws(runs)},
    )


def _spread(averages: Sequence[float | None]) -> Spread | None:
    known = tuple(average for average in averages if average is not None)
    return Spread(known) if len(known) == len(averages) else None


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


def _draws(runs: int) -> list[int]:
    """1, 2, 4, 8, ... and the number of runs."""
    return sorted({1 << power for power in range(runs.bit_length())} | {runs})


def _check_settings(one: ComparedResult, other: ComparedResult) -> None:
    before, now = _settings(one), _settings(other)
    different = differing(before, now) if before and now else []
    if different:
        name = different[0]
        raise NotRepeatsError(
            f"these are not repeats of one setting: {name} is {before.get(name)!r} in {one.origin.path}, "
            f"{now.get(name)!r} in {other.origin.path}"
        )


def _settings(result: ComparedResult) -> dict[str, Any]:
    """All but the seed, which each repeat has of its own; {} where they are unknown."""
    meta = result.origin.meta
    return {name: value for name, value in meta.settings.items() if name != "seed"} if meta else {}
