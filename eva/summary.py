"""What a run and accuracy.py print of a score. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eva.interval import Interval
from eva.scoring import Score
from eva.text import printable
from eva.tool import Usage


def summary_lines(score: Score) -> list[str]:
    """The reference's closing summary of a run: accuracy over all its items, and how the samples ended."""
    return [
        accuracy_line(score),
        f"Empty answers: {score.empty}",
        f"Missing from the cache: {score.missing}",
        *_averages(score),
        *_stop_reasons(score),
        f"Errors: {', '.join(map(str, score.error_indices)) or 'none'}",
    ]


def truth_lines(score: Score, interval: Interval | None, wall_s: float, frames: Usage) -> list[str]:
    """What the accuracy leaves out: who failed, what is still to come, and how sure the figure is."""
    low, high = score.bounds
    return [
        f"Answered: {score.answered} of {score.total}",
        "Failures: " + ", ".join(f"{count} {kind}" for kind, count in score.failures),
        f"Pending (infrastructure failures, missing): {score.pending}",
        f"Accuracy if all pending were wrong, right: {low:.4%}, {high:.4%}",
        interval_line(interval),
        f"Seconds per sample: {score.average_seconds:.2f}",
        f"Wall time of this run: {wall_s:.0f} s",
        frames_line(frames),
    ]


def file_lines(score: Score) -> list[str]:
    """What accuracy.py prints first of a result file, which is its own denominator."""
    return [
        f"Total entries: {score.total}",
        accuracy_line(score),
        f"Empty answers: {score.empty}",
        *_averages(score),
        *_stop_reasons(score),
    ]


def accuracy_line(score: Score) -> str:
    return f"Accuracy: {score.correct}/{score.total} = {score.accuracy:.4%}"


def interval_line(interval: Interval | None) -> str:
    if interval is None:
        return "95 % interval: none, there are fewer than two videos"
    return f"95 % interval, clustered by video: {interval.low:.2%} to {interval.high:.2%}"


def frames_line(frames: Usage) -> str:
    """How many frames of this run were decoded, and how many were there already."""
    kept = frames.asked - frames.decoded
    rate = f" ({kept / frames.asked:.1%})" if frames.asked else ""
    return f"Frames of this run: {frames.asked}, {kept} from the store{rate}"


def summary_json(score: Score, interval: Interval | None, wall_s: float, frames: Usage) -> Mapping[str, Any]:
    """The same figures for programs; accuracies are fractions."""
    return {
        "total": score.total,
        "recorded": score.recorded,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "accuracy_bounds": list(score.bounds),
        "interval_95": interval_json(interval),
        "answered": score.answered,
        "empty": score.empty,
        "missing": score.missing,
        "pending": score.pending,
        "failures": dict(score.failures),
        "stop_reasons": dict(score.stop_reasons),
        "error_indices": list(score.error_indices),
        "average_rounds": score.average_rounds,
        "average_total_tokens": score.average_tokens,
        "average_seconds": score.average_seconds,
        "wall_seconds": round(wall_s, 1),
        "frames": {"asked": frames.asked, "decoded": frames.decoded},
    }


def file_json(score: Score, interval: Interval | None) -> dict[str, Any]:
    """What accuracy.py says of a result file, for programs; accuracies are fractions."""
    return {
        "total": score.total,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "interval_95": interval_json(interval),
        "empty": score.empty,
        "average_rounds": score.average_rounds,
        "average_total_tokens": score.average_tokens,
        "stop_reasons": dict(score.stop_reasons),
    }


def interval_json(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


def _averages(score: Score) -> list[str]:
    return [f"Average rounds: {score.average_rounds:.4f}", f"Average total tokens: {score.average_tokens:.4f}"]


def _stop_reasons(score: Score) -> list[str]:
    return ["Stop reasons:", *(f"  {printable(reason)}: {count}" for reason, count in score.stop_reasons)]
