"""What a run and accuracy.py print of a score. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.scoring.coverage import Coverage
from eva.scoring.interval import Interval
from eva.scoring.score import Score
from eva.text import printable

# Of the indices that a line names; the rest are counted.
_MOST_INDICES = 20


def summary_lines(score: Score) -> list[str]:
    """The reference's closing summary of a run: accuracy over all its items, and how the samples ended.

    A run that has not asked all of them has no accuracy yet.
    """
    return [
        *(so_far_lines(score, score.missing) if score.missing else [accuracy_line(score)]),
        f"Empty answers: {score.empty}",
        f"Missing from the cache: {score.missing}",
        *_averages(score),
        *_stop_reasons(score),
        f"Errors: {', '.join(map(str, score.error_indices)) or 'none'}",
    ]


def truth_lines(
    score: Score, interval: Interval | None, wall_s: float, *, frames_asked: int, frames_decoded: int
) -> list[str]:
    """What the accuracy leaves out: who failed, what is still to come, and how sure the figure is."""
    low, high = score.bounds
    sure = [f"Accuracy if all pending were wrong, right: {low:.4%}, {high:.4%}", interval_line(interval)]
    return [
        f"Answered: {score.answered} of {score.total}",
        "Failures: " + ", ".join(f"{count} {kind}" for kind, count in score.failures),
        f"Pending (infrastructure failures, missing): {score.pending}",
        *([] if score.missing else sure),
        *unusable_lines(score),
        f"Seconds per sample: {score.average_seconds:.2f}",
        f"Wall time of this run: {wall_s:.0f} s",
        frames_line(frames_asked, frames_decoded),
    ]


def file_lines(score: Score) -> list[str]:
    """What accuracy.py prints first of a result file, which is its own denominator."""
    return [f"Total entries: {score.total}", accuracy_line(score), *_file_rest(score)]


def partial_file_lines(score: Score, to_go: int | None) -> list[str]:
    """The same of a file of a run that has not finished; `to_go` is None where nobody knows how much is to come."""
    return [partial_line(score, to_go), *so_far_lines(score, to_go), *_file_rest(score)]


def partial_line(score: Score, to_go: int | None) -> str:
    asked = "an unknown number of" if to_go is None else score.total
    return f"Partial: {score.recorded} of {asked} questions have a record"


def so_far_lines(score: Score, to_go: int | None) -> list[str]:
    """What can be said of an unfinished run. There is no interval: what came first is no draw from all."""
    if to_go is None:
        return [so_far_line(score, to_go)]
    low, high = score.bounds
    return [
        so_far_line(score, to_go),
        f"Accuracy in the end: from {low:.4%} if the rest were wrong, to {high:.4%} if it were right",
    ]


def so_far_line(score: Score, to_go: int | None) -> str:
    rest = "nobody knows how many are to go" if to_go is None else f"{to_go} to go"
    again = dict(score.failures)[INFRASTRUCTURE]
    return f"So far: {score.correct} of {score.recorded} answered are right; {rest}" + (
        f", {again} to run again" if again else ""
    )


def choice_line(coverage: Coverage) -> str:
    return f"Complete for {coverage.recorded} of {coverage.questions} questions: the others were not chosen"


def unusable_lines(score: Score) -> list[str]:
    """Which records the averages leave out."""
    return [unusable_line(name, indices) for name, indices in score.unusable if indices]


def unusable_line(name: str, indices: Sequence[int]) -> str:
    some = ", ".join(map(str, indices[:_MOST_INDICES]))
    more = f" and {len(indices) - _MOST_INDICES} more" if len(indices) > _MOST_INDICES else ""
    count = "1 record has" if len(indices) == 1 else f"{len(indices)} records have"
    return f"{count} no usable {name}: {some}{more}"


def accuracy_line(score: Score) -> str:
    return f"Accuracy: {score.correct}/{score.total} = {score.accuracy:.4%}"


def interval_line(interval: Interval | None) -> str:
    if interval is None:
        return "95 % interval: none, there are fewer than two videos"
    return f"95 % interval, clustered by video: {interval.low:.2%} to {interval.high:.2%}"


def frames_line(asked: int, decoded: int) -> str:
    """How many frames of this run were decoded, and how many were there already."""
    kept = asked - decoded
    rate = f" ({kept / asked:.1%})" if asked else ""
    return f"Frames of this run: {asked}, {kept} from the store{rate}"


def summary_json(
    score: Score, interval: Interval | None, wall_s: float, *, frames_asked: int, frames_decoded: int
) -> Mapping[str, Any]:
    """The same figures for programs; accuracies are fractions, null while the run has not finished."""
    return {
        **_accuracy_json(score, score.missing, interval),
        "answered": score.answered,
        "empty": score.empty,
        "missing": score.missing,
        "pending": score.pending,
        "failures": dict(score.failures),
        "stop_reasons": dict(score.stop_reasons),
        "error_indices": list(score.error_indices),
        "unusable_counts": _unusable_json(score),
        "average_rounds": score.average_rounds,
        "average_total_tokens": score.average_tokens,
        "average_seconds": score.average_seconds,
        "wall_seconds": round(wall_s, 1),
        "frames": {"asked": frames_asked, "decoded": frames_decoded},
    }


def file_json(score: Score, coverage: Coverage, interval: Interval | None) -> dict[str, Any]:
    """What accuracy.py says of a result file, for programs; accuracies are fractions, null of an unfinished run."""
    return {
        **_accuracy_json(score, coverage.to_go, interval),
        "questions": coverage.questions,
        "covered": coverage.recorded,
        "empty": score.empty,
        "unusable_counts": _unusable_json(score),
        "average_rounds": score.average_rounds,
        "average_total_tokens": score.average_tokens,
        "stop_reasons": dict(score.stop_reasons),
    }


def _accuracy_json(score: Score, to_go: int | None, interval: Interval | None) -> dict[str, Any]:
    known = to_go is not None
    return {
        "partial": to_go != 0,
        "total": score.total if known else None,
        "recorded": score.recorded,
        "to_go": to_go,
        "correct": score.correct,
        "accuracy": score.accuracy if to_go == 0 else None,
        "accuracy_bounds": list(score.bounds) if known else None,
        "interval_95": interval_json(interval),
    }


def _unusable_json(score: Score) -> dict[str, list[int]]:
    return {name: list(indices) for name, indices in score.unusable}


def interval_json(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


def _file_rest(score: Score) -> list[str]:
    return [f"Empty answers: {score.empty}", *_averages(score), *_stop_reasons(score)]


def _averages(score: Score) -> list[str]:
    return [f"Average rounds: {score.average_rounds:.4f}", f"Average total tokens: {score.average_tokens:.4f}"]


def _stop_reasons(score: Score) -> list[str]:
    return ["Stop reasons:", *(f"  {printable(reason)}: {count}" for reason, count in score.stop_reasons)]
