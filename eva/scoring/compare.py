"""Two results of the same questions -> what differs, and how sure that is. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eva.errors import EvaError
from eva.protocol.stop_reasons import EXCEPTION
from eva.records.outcome import Outcome, same_answer
from eva.scoring.interval import FEWER_RESAMPLES, RESAMPLES, Interval, clustered_interval, smallest_difference

# With one category per question the bootstrap would take minutes.
MAX_CATEGORIES = 100


class DifferentQuestionsError(EvaError):
    """Two results are of different questions. The message names the first sample that shows it."""


@dataclass(frozen=True)
class Answered:
    """One sample of one result: what it counts for, all its videos, and the categories of its question."""

    outcome: Outcome
    videos: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One question in both results."""

    a: Answered
    b: Answered

    @property
    def index(self) -> int:
        return self.a.outcome.index

    @property
    def video(self) -> str:
        return self.a.outcome.video or self.b.outcome.video

    @property
    def categories(self) -> tuple[str, ...]:
        """Of either result: the reference's records lack the keys of the annotation."""
        return self.a.categories or self.b.categories

    @property
    def answer_changed(self) -> bool:
        return not same_answer(self.a.outcome.answer, self.b.outcome.answer)


@dataclass(frozen=True)
class Change:
    """A mean in both results, and the 95 % interval of the difference, clustered by video (None: one video)."""

    a: float
    b: float
    interval: Interval | None

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.b - self.a


@dataclass(frozen=True)
class Flips:
    """Accuracies over `count` pairs, the indices that are right in one result only, and McNemar's exact p value.

    `smallest_difference` is the smallest difference of accuracies that these pairs could have shown, None where nothing
    tells it. It and the p value are None where a run has not finished.
    """

    count: int
    accuracy: Change
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    p_value: float | None
    smallest_difference: float | None

    @property
    def total(self) -> int:
        return len(self.only_a) + len(self.only_b)


@dataclass(frozen=True)
class Comparison:
    """`missing_in_b` are the indices that A alone has. `failed` is the number of exceptions in A and in B. They say
    nothing of the agent and yet count as wrong.

    `categories` come largest first. `categories_left_out` is the number of smaller ones beyond MAX_CATEGORIES.
    `rounds`, `tokens` and `visual_tokens` are over the pairs with two usable counts, None where there is no such pair.
    With `partial` nothing has an interval or a p value: the first records of an unfinished run are not a random sample.
    """

    missing_in_a: tuple[int, ...]
    missing_in_b: tuple[int, ...]
    flips: Flips
    rounds: Change | None
    tokens: Change | None
    visual_tokens: Change | None
    answers_changed: int
    failed: tuple[int, int]
    categories: tuple[tuple[str, Flips], ...]
    categories_left_out: int
    partial: bool = False


def compare(a: Mapping[int, Answered], b: Mapping[int, Answered], *, partial: bool = False) -> Comparison:
    """Both results, as samples by index, over the indices that they share; `partial` where a run has not finished.

    Raises DifferentQuestionsError where there are none, or where an index means another question in the other result.
    """
    pairs = pair_up(a, b)
    categories = _by_category(pairs)
    whole, part = (0, 0) if partial else (RESAMPLES, FEWER_RESAMPLES)
    return Comparison(
        missing_in_a=tuple(sorted(b.keys() - a.keys())),
        missing_in_b=tuple(sorted(a.keys() - b.keys())),
        flips=flips(pairs, n_resamples=whole),
        rounds=_count_change(pairs, lambda outcome: outcome.num_rounds, part),
        tokens=_count_change(pairs, lambda outcome: outcome.total_tokens, part),
        visual_tokens=_count_change(pairs, lambda outcome: outcome.visual_tokens, part),
        answers_changed=sum(pair.answer_changed for pair in pairs),
        failed=(_failed([pair.a for pair in pairs]), _failed([pair.b for pair in pairs])),
        categories=tuple((name, flips(group, n_resamples=part)) for name, group in categories[:MAX_CATEGORIES]),
        categories_left_out=max(0, len(categories) - MAX_CATEGORIES),
        partial=partial,
    )


def pair_up(a: Mapping[int, Answered], b: Mapping[int, Answered]) -> list[Pair]:
    """The common questions by index. Raises DifferentQuestionsError."""
    pairs = [Pair(a[index], b[index]) for index in sorted(a.keys() & b.keys())]
    if not pairs:
        raise DifferentQuestionsError("the two results have no question in common: no index is in both")
    for pair in pairs:
        difference = question_difference(pair.a, pair.b)
        if difference:
            raise DifferentQuestionsError(
                f"these results are of different questions: index {pair.index} has {difference}"
            )
    return pairs


def question_difference(a: Answered, b: Answered) -> str:
    """What shows that two samples are of different questions, '' if nothing does. A record may not name its videos."""
    truths = a.outcome.ground_truth, b.outcome.ground_truth
    if not same_answer(*truths):
        return f"the ground truth {truths[0]!r:.80} in one and {truths[1]!r:.80} in the other"
    if a.videos and b.videos and a.videos != b.videos:
        return f"the video {a.videos[0]!r:.200} in one and {b.videos[0]!r:.200} in the other"
    return ""


def flips(pairs: Sequence[Pair], *, n_resamples: int) -> Flips:
    """With no resamples, nothing is tested."""
    only_a = tuple(pair.index for pair in pairs if pair.a.outcome.correct and not pair.b.outcome.correct)
    only_b = tuple(pair.index for pair in pairs if pair.b.outcome.correct and not pair.a.outcome.correct)
    accuracy = _change(pairs, lambda outcome: outcome.correct, n_resamples)
    p_value = mcnemar_p(len(only_a), len(only_b)) if n_resamples else None
    return Flips(len(pairs), accuracy, only_a, only_b, p_value, _smallest_difference(pairs) if n_resamples else None)


def _smallest_difference(pairs: Sequence[Pair]) -> float | None:
    differences = [pair.b.outcome.correct - pair.a.outcome.correct for pair in pairs]
    return smallest_difference([pair.video for pair in pairs], differences)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """McNemar's exact test, two-sided: between equal results a flip goes either way with the probability 1/2."""
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest  # noqa: PLC0415  takes a second to import, and not every caller comes here

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def _change(pairs: Sequence[Pair], measure: Callable[[Outcome], float], n_resamples: int) -> Change:
    a = [measure(pair.a.outcome) for pair in pairs]
    b = [measure(pair.b.outcome) for pair in pairs]
    differences = [second - first for first, second in zip(a, b, strict=True)]
    videos = [pair.video for pair in pairs]
    interval = clustered_interval(videos, differences, n_resamples=n_resamples)
    return Change(sum(a) / len(pairs), sum(b) / len(pairs), interval)


def _count_change(pairs: Sequence[Pair], count: Callable[[Outcome], float | None], n_resamples: int) -> Change | None:
    known = [pair for pair in pairs if count(pair.a.outcome) is not None and count(pair.b.outcome) is not None]
    return _change(known, lambda outcome: count(outcome) or 0, n_resamples) if known else None


def _failed(samples: Sequence[Answered]) -> int:
    return sum(sample.outcome.stop_reason == EXCEPTION for sample in samples)


def _by_category(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """The pairs of each category, the largest first."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        for name in pair.categories:
            groups.setdefault(name, []).append(pair)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
