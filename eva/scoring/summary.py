"""What a run and accuracy.py print of a score. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.scoring.coverage import Coverage
from eva.scoring.interval import Interval
from eva.scoring.score import Score
from eva.text import folded, printable

# The number of indices that a line names; it only counts the rest.
_MAX_INDICES = 20
_COLUMNS = 80
# One percentage point, as a fraction.
ONE_POINT = 0.01


def head_lines(score: Score, published: Sequence[str]) -> list[str]:
    """The first lines of a run's summary: its accuracy over all its items, how sure that is, the `published` figures
    with what limits the comparison, and how many samples failed.

    A run that has not asked all of its items has no accuracy yet.
    """
    failures = ", ".join(f"{count} {kind}" for kind, count in score.failures.items() if count)
    rows = [*([] if score.partial else [("Accuracy:", _accuracy(score, ".2%")), _interval_row(score.interval)])]
    rows += zip(["Published:", *[""] * len(published)], published, strict=False)
    rows += [("Chance:", _chance(score)), ("Failures:", failures or "none")]
    table = [line for name, text in rows for line in folded(f"{name:15}{text}", _COLUMNS, " " * 15)]
    return [*(so_far_lines(score) if score.partial else []), *table]


def rest_lines(score: Score, wall_s: float, *, frames_asked: int, frames_decoded: int) -> list[str]:
    """The other figures of a run's summary: how the samples ended, and what the accuracy leaves out."""
    low, high = score.bounds
    known = [
        f"Accuracy if all pending were wrong, right: {low:.2%}, {high:.2%}", *_power_lines(score.smallest_difference)
    ]  # fmt: skip
    return [
        f"Answered: {score.answered} of {score.total}",
        f"Empty answers: {score.empty}",
        f"Missing from the cache: {score.missing}",
        *_averages(score, ".2f"),
        f"Errors: {', '.join(map(str, score.error_indices)) or 'none'}",
        f"Pending (infrastructure failures, missing): {score.pending}",
        *([] if score.partial else known),
        *unusable_lines(score),
        f"Seconds per sample: {figure(score.average_seconds, '.2f')}",
        f"Wall time of this run: {wall_s:.0f} s",
        _frames_line(frames_asked, frames_decoded),
    ]


def file_lines(score: Score) -> list[str]:
    """What accuracy.py prints first of a result file. Of an unfinished run: what can be said so far.

    The accuracy and the averages have four decimals, as those of the reference.
    """
    if score.partial:
        lines = [partial_line(score), *so_far_lines(score)]
    else:
        lines = [f"Total entries: {score.total}", f"Accuracy: {_accuracy(score, '.4%')}"]
    lines += [f"Empty answers: {score.empty}", *_averages(score, ".4f")]
    return [*lines, *([] if score.partial else _sure_lines(score)), chance_line(score), *unusable_lines(score)]


def partial_line(score: Score) -> str:
    asked = "an unknown number of" if score.to_go is None else score.total
    return f"Partial: {score.recorded} of {asked} questions have a record"


def so_far_lines(score: Score) -> list[str]:
    """What can be said of an unfinished run. It has no interval: its first records are not a random sample."""
    if score.to_go is None:
        return [so_far_line(score)]
    low, high = score.bounds
    end = f"Accuracy in the end: from {low:.2%} if the rest were wrong, to {high:.2%} if it were right"
    return [so_far_line(score), end]


def so_far_line(score: Score) -> str:
    rest = "nobody knows how many are to go" if score.to_go is None else f"{score.to_go} to go"
    again = score.failures[INFRASTRUCTURE]
    return f"So far: {score.correct} of {score.recorded} answered are right; {rest}" + (
        f", {again} to run again" if again else ""
    )


def choice_line(coverage: Coverage) -> str:
    return f"Complete for {coverage.recorded} of {coverage.questions} questions: the others were not chosen"


def unusable_lines(score: Score) -> list[str]:
    """Which records the averages leave out."""
    return [_unusable_line(name, indices) for name, indices in score.unusable.items() if indices]


def _unusable_line(name: str, indices: Sequence[int]) -> str:
    some = ", ".join(map(str, indices[:_MAX_INDICES]))
    more = f" and {len(indices) - _MAX_INDICES} more" if len(indices) > _MAX_INDICES else ""
    count = "1 record has" if len(indices) == 1 else f"{len(indices)} records have"
    return f"{count} no usable {name}: {some}{more}"


def _accuracy(score: Score, form: str) -> str:
    return f"{score.correct}/{score.total} = {score.bounds[0]:{form}}"


def chance_line(score: Score) -> str:
    """What guessing reaches."""
    what = "" if score.chance is None else " (a guess among each question's options)"
    return f"Chance{what}: {_chance(score)}"


def _chance(score: Score) -> str:
    """Where the options of some questions cannot be read, the text says of how many questions the figure is."""
    if score.chance is None:
        return "not known, the options of no question can be read"
    known = len(score.chances)
    part = "" if known == score.recorded else f", of {known} of {score.recorded} questions: those with readable options"
    return f"{score.chance:.2%}{part}"


def _sure_lines(score: Score) -> list[str]:
    return [interval_line(score.interval), *_power_lines(score.smallest_difference)]


def _power_lines(smallest: float | None) -> list[str]:
    """How far the run is from being able to tell one point: the error falls with the root of the number of videos."""
    if smallest is None:
        return []
    times = (smallest / ONE_POINT) ** 2
    more = "" if times <= 1 else f"; one point needs {times:.1f} times as many videos"
    return [f"Smallest difference from a fixed figure that it can show (80 % power): {100 * smallest:.2f} points{more}"]


def interval_line(interval: Interval | None) -> str:
    if interval is None or interval.bound_videos:
        return " ".join(_interval_row(interval))
    return f"95 % interval, clustered by video: {interval.low:.2%} to {interval.high:.2%}"


def _interval_row(interval: Interval | None) -> tuple[str, str]:
    """Its name and its text."""
    if interval is None:
        return "95 % interval:", "none, there are fewer than two videos"
    if interval.bound_videos is None:
        return "95 % interval:", f"{interval.low:.2%} to {interval.high:.2%}, clustered by video"
    bound = f"at least {interval.low:.2%}" if interval.low else f"at most {interval.high:.2%}"
    alike = "right" if interval.low else "wrong"
    return "95 % bound:", f"{bound} (all are {alike}, on {interval.bound_videos} videos; one-sided, exact)"


def _frames_line(asked: int, decoded: int) -> str:
    """How many frames of this run were decoded, and how many were there already."""
    kept = asked - decoded
    rate = f" ({kept / asked:.2%})" if asked else ""
    return f"Frames of this run: {asked}, {kept} from the store{rate}"


def _averages(score: Score, form: str) -> list[str]:
    return [
        f"Average rounds: {figure(score.average_rounds, form)}",
        f"Average total tokens: {figure(score.average_tokens, form)}",
        "Stop reasons:",
        *(f"  {printable(reason)}: {count}" for reason, count in score.stop_reasons.items()),
    ]


def figure(value: float | None, form: str) -> str:
    """A figure that no record may tell."""
    return "not known" if value is None else format(value, form)


def summary_json(score: Score, wall_s: float, *, frames_asked: int, frames_decoded: int) -> dict[str, Any]:
    """The figures of a run for programs. Accuracies are fractions, null while the run has not finished."""
    return {
        **_score_json(score),
        "answered": score.answered,
        "missing": score.missing,
        "pending": score.pending,
        "failures": score.failures,
        "error_indices": score.error_indices,
        "average_seconds": score.average_seconds,
        "wall_seconds": round(wall_s, 1),
        "frames": {"asked": frames_asked, "decoded": frames_decoded},
    }


def file_json(score: Score, coverage: Coverage) -> dict[str, Any]:
    """The figures of a result file for programs. Accuracies are fractions, null of an unfinished run."""
    return {**_score_json(score), "questions": coverage.questions, "covered": coverage.recorded}


def _score_json(score: Score) -> dict[str, Any]:
    known = score.to_go is not None
    return {
        "partial": score.partial,
        "total": score.total if known else None,
        "recorded": score.recorded,
        "to_go": score.to_go,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "accuracy_bounds": list(score.bounds) if known else None,
        "interval_95": interval_json(score.interval),
        "interval_is_bound": score.interval is not None and score.interval.bound_videos is not None,
        "smallest_difference": score.smallest_difference,
        "chance": {"accuracy": score.chance, "questions": len(score.chances)},
        "empty": score.empty,
        "unusable_counts": score.unusable,
        "average_rounds": score.average_rounds,
        "average_total_tokens": score.average_tokens,
        "stop_reasons": score.stop_reasons,
    }


def interval_json(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None
