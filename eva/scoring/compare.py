"""Two results of the same questions -> what differs, and how sure that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eva.errors import EvaError
from eva.protocol.stop_reasons import EXCEPTION
from eva.records.meta import differing
from eva.records.outcome import Outcome, same_answer
from eva.scoring.categories import by_category
from eva.scoring.interval import Interval, mean_interval, smallest_difference
from eva.scoring.result_file import Answered, ResultFile, question_difference


class DifferentQuestionsError(EvaError):
    """Two results are of different questions. The message names the first sample that shows it."""


@dataclass(frozen=True)
class Change:
    """A mean in both results, B minus A, and the 95 % interval of the difference; None with few videos."""

    a: float
    b: float
    difference: float
    interval_95: Interval | None


@dataclass(frozen=True)
class Flips:
    """Accuracies over the `common` questions, the indices that are right in one result only, McNemar's exact p value,
    and the smallest difference of accuracies that these questions could have shown (None where nothing tells it).

    Where a run has not finished nothing is tested: its first records are not a random sample.
    """

    common: int
    accuracy: Change
    mcnemar_p: float | None
    smallest_difference: float | None
    right_only_in_a: tuple[int, ...]
    right_only_in_b: tuple[int, ...]


@dataclass(frozen=True)
class Comparison(Flips):
    """The fields are the keys of `--json`. Differences are B minus A. `exceptions` say nothing of the agent and yet
    count as wrong. The means are over the questions with two usable counts, None where there is none. `categories` come
    largest first. `noise_floor` has the shares of questions that changed although the settings are the same; None where
    these are not known to be the same.
    """

    a: str
    b: str
    agents: dict[str, str]
    partial: dict[str, bool]
    to_go: dict[str, int | None]
    only_in_a: tuple[int, ...]
    only_in_b: tuple[int, ...]
    average_rounds: Change | None
    average_total_tokens: Change | None
    average_visual_tokens: Change | None
    exceptions: dict[str, int]
    answers_changed: int
    categories: dict[str, Flips]
    noise_floor: dict[str, float] | None


Pair = tuple[Answered, Answered]


def compare(a: ResultFile, b: ResultFile) -> Comparison:
    """Over the questions that both have. Raises DifferentQuestionsError where there are none, or where an index
    means another question in the other result.
    """
    pairs = pair_up(a, b)
    tested = not (a.score.partial or b.score.partial)
    # The reference's records lack the keys of the annotation.
    groups = by_category(pairs, lambda pair: pair[0].categories or pair[1].categories)
    sizes = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    answers_changed = sum(not same_answer(one.outcome.answer, other.outcome.answer) for one, other in pairs)
    whole = _flips(pairs, tested=tested)
    flipped = len(whole.right_only_in_a) + len(whole.right_only_in_b)
    noise = {"answer_changed": answers_changed / len(pairs), "correctness_changed": flipped / len(pairs)}
    failed = [sum(pair[side].outcome.stop_reason == EXCEPTION for pair in pairs) for side in (0, 1)]
    return Comparison(
        **vars(whole),
        a=str(a.path),
        b=str(b.path),
        agents={"a": a.agent, "b": b.agent},
        partial={"a": a.score.partial, "b": b.score.partial},
        to_go={"a": a.score.to_go, "b": b.score.to_go},
        only_in_a=tuple(sorted(a.samples.keys() - b.samples.keys())),
        only_in_b=tuple(sorted(b.samples.keys() - a.samples.keys())),
        average_rounds=_count_change(pairs, lambda outcome: outcome.num_rounds, tested=tested),
        average_total_tokens=_count_change(pairs, lambda outcome: outcome.total_tokens, tested=tested),
        average_visual_tokens=_count_change(pairs, lambda outcome: outcome.visual_tokens, tested=tested),
        exceptions={"a": failed[0], "b": failed[1]},
        answers_changed=answers_changed,
        categories={name: _flips(group, tested=tested) for name, group in sizes},
        noise_floor=noise if _same_settings(a, b) else None,
    )


def pair_up(a: ResultFile, b: ResultFile) -> list[Pair]:
    """The common questions by index. Raises DifferentQuestionsError."""
    pairs = [(a.samples[index], b.samples[index]) for index in sorted(a.samples.keys() & b.samples.keys())]
    if not pairs:
        raise DifferentQuestionsError("the two results have no question in common: no index is in both")
    for one, other in pairs:
        difference = question_difference(one, other)
        if difference:
            index = one.outcome.index
            raise DifferentQuestionsError(f"these results are of different questions: index {index} has {difference}")
    return pairs


def _flips(pairs: Sequence[Pair], *, tested: bool) -> Flips:
    right = [(one.outcome.index, one.outcome.correct, other.outcome.correct) for one, other in pairs]
    only_a = tuple(index for index, a, b in right if a and not b)
    only_b = tuple(index for index, a, b in right if b and not a)
    rows = [(_video(pair), float(a), float(b)) for pair, (_, a, b) in zip(pairs, right, strict=True)]
    smallest = smallest_difference([row[0] for row in rows], [b - a for _, a, b in rows]) if tested else None
    p_value = mcnemar_p(len(only_a), len(only_b)) if tested else None
    return Flips(len(pairs), _change(rows, tested=tested), p_value, smallest, only_a, only_b)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """McNemar's exact test, two-sided: between equal results a flip goes either way with the probability 1/2."""
    flips = only_a + only_b
    at_most = sum(math.comb(flips, count) for count in range(min(only_a, only_b) + 1))
    return float(min(1.0, 2 * at_most / 2**flips))


def _count_change(pairs: Sequence[Pair], count: Callable[[Outcome], float | None], *, tested: bool) -> Change | None:
    """Over the pairs of which both counts are known; None where there is none."""
    rows = [
        (_video(pair), a, b)
        for pair in pairs
        if (a := count(pair[0].outcome)) is not None and (b := count(pair[1].outcome)) is not None
    ]
    return _change(rows, tested=tested) if rows else None


def _change(rows: Sequence[tuple[str, float, float]], *, tested: bool) -> Change:
    """`rows` have a video, and a figure in A and in B."""
    a, b = sum(row[1] for row in rows) / len(rows), sum(row[2] for row in rows) / len(rows)
    interval = mean_interval([row[0] for row in rows], [row[2] - row[1] for row in rows]) if tested else None
    return Change(a, b, b - a, interval)


def _video(pair: Pair) -> str:
    return pair[0].outcome.video or pair[1].outcome.video


def _same_settings(a: ResultFile, b: ResultFile) -> bool:
    """Whether the two can differ by chance and by their servers alone. Unknown settings are not the same."""
    if a.meta is None or b.meta is None or any(meta.mixed or meta.adopted for meta in (a.meta, b.meta)):
        return False
    return bool(a.meta.settings and b.meta.settings) and not differing(a.meta.settings, b.meta.settings)
