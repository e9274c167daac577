"""What a run and accuracy.py print of a score. Pure."""

from __future__ import annotations

from eva.scoring import Score


def summary_lines(score: Score) -> list[str]:
    """The closing summary of a run: accuracy over all its items, and how the samples ended."""
    return [
        f"Accuracy: {score.correct}/{score.total} = {score.accuracy:.4%}",
        f"Empty answers: {score.empty}",
        f"Missing from the cache: {score.total - score.recorded}",
        *_averages(score),
        *_stop_reasons(score),
        f"Errors: {', '.join(map(str, score.error_indices)) or 'none'}",
    ]


def file_lines(score: Score) -> list[str]:
    """What accuracy.py prints of a result file, which is its own denominator."""
    return [
        f"Total entries: {score.total}",
        f"Accuracy: {score.correct}/{score.total} = {score.accuracy:.4%}",
        f"Empty answers: {score.empty}",
        *_averages(score),
        *_stop_reasons(score),
    ]


def _averages(score: Score) -> list[str]:
    return [f"Average rounds: {score.average_rounds:.4f}", f"Average total tokens: {score.average_tokens:.4f}"]


def _stop_reasons(score: Score) -> list[str]:
    return ["Stop reasons:", *(f"  {reason}: {count}" for reason, count in score.stop_reasons)]
