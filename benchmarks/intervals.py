"""How often a 95 % interval of an accuracy holds the truth: ours, and the bootstrap of whole videos.

    python benchmarks/intervals.py      prints a table; in less than a minute

Each video has a chance of its own, from a beta distribution with the accuracy as its mean. The higher the correlation,
the more the questions of a video stand or fall together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eva.scoring.interval import MIN_VIDEOS, share_interval

TRIES, DRAWS = 1000, 400
ACCURACIES = (0.5, 0.8, 0.95)
# The number of videos, of questions on each, and the correlation. The last two are like LVBench and Video-MME.
SHAPES = ((MIN_VIDEOS, 5, 0.2), (15, 5, 0.2), (20, 1, 0.0), (20, 3, 0.2), (50, 5, 0.4), (103, 15, 0.1), (900, 3, 0.2))


def main() -> None:
    heads = [f"{name}, accuracy {share:.0%}" for share in ACCURACIES for name in ("ours", "bootstrap")]
    print(
        f"| videos | questions on each | correlation | {' | '.join(heads)} |", "|---" * (3 + len(heads)) + "|", sep="\n"
    )
    for shape in SHAPES:
        held = [f"{part:.1%}" for accuracy in ACCURACIES for part in coverage(accuracy, *shape)]
        print(f"| {' | '.join([*map(str, shape), *held])} |", flush=True)


def coverage(accuracy: float, videos: int, questions: int, correlation: float) -> Sequence[float]:
    """How often each of the two intervals holds `accuracy`."""
    dice = np.random.default_rng(0)
    names = [str(number) for number in range(videos) for _ in range(questions)]
    ours, bootstrapped = 0, 0
    for right in results(dice, accuracy, videos, questions, correlation):
        interval = share_interval(names, right.ravel().tolist())
        ours += interval is not None and accuracy in interval
        means = right.mean(axis=1)[dice.integers(0, videos, (DRAWS, videos))].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        bootstrapped += bool(low <= accuracy <= high)
    return ours / TRIES, bootstrapped / TRIES


def results(
    dice: np.random.Generator, accuracy: float, videos: int, questions: int, correlation: float
) -> Iterator[NDArray[np.float64]]:
    """Made-up results: 1 for each right answer, videos x questions."""
    for _ in range(TRIES):
        chances = np.full(videos, accuracy)
        if correlation:
            weight = (1 - correlation) / correlation
            chances = dice.beta(accuracy * weight, (1 - accuracy) * weight, videos)
        yield (dice.random((videos, questions)) < chances[:, None]).astype(float)


if __name__ == "__main__":
    main()
