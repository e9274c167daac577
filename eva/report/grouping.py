"""Samples -> groups (by rounds, tokens, ...): one row per group, with one estimate per run. Pure."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import filterfalse, pairwise

import numpy as np

from eva.report.samples import Run, Sample
from eva.scoring.categories import UNKNOWN
from eva.scoring.interval import Interval, share_interval

MANY_ROUNDS = 10
LENGTH_EDGES_S = (60, 180, 600, 1800, 3600)
LENGTHS = ("under 1 min", "1 to 3 min", "3 to 10 min", "10 to 30 min", "30 to 60 min", "60 min and more")
TOKEN_BINS = 5
FEWEST_PER_BIN = 10
MAX_CATEGORIES = 24
MAX_STOP_REASONS = 8


@dataclass(frozen=True)
class Estimate:
    """A share of `count` samples, and its interval; None with few videos, and of an unfinished run."""

    count: int
    value: float
    interval: Interval | None

    def __str__(self) -> str:
        between = f" ({self.interval.low:.1%} to {self.interval.high:.1%})" if self.interval else ""
        return f"{self.value:.1%}{between} of {self.count:,}"


@dataclass(frozen=True)
class Group:
    """A group of samples. `estimates` has one entry per run, None where the run has no such sample."""

    label: str
    estimates: tuple[Estimate | None, ...]


# A sample -> the labels of its groups.
Labels = Callable[[Sample], Sequence[str]]


def by_source(runs: Sequence[Run]) -> list[Group]:
    """The accuracy of each run, then each published figure, beside the run of its dataset that it belongs to."""
    beside = beside_published(runs)
    firsts = [run if number in beside else None for number, run in enumerate(runs)]
    sources = dict.fromkeys(one.source for run in runs if run.published for one in run.published.figures)
    return [
        Group("This result", tuple(accuracy(run, run.samples) for run in runs)),
        *(Group(f"Published ({source})", tuple(_published(run, source) for run in firsts)) for source in sources),
    ]


def beside_published(runs: Sequence[Run]) -> set[int]:
    """The number of the run that the published figures belong to, of each dataset: the first of EVA, else the first."""
    # Of several the last in this order stays: those of EVA, and of these the first.
    ranked = sorted(enumerate(runs), key=lambda one: (one[1].agent == "eva", -one[0]))
    return set({run.dataset: number for number, run in ranked}.values())


def curves(runs: Sequence[Run]) -> list[list[tuple[int, int]]]:
    """Of each group of runs that differ in the number of frames alone: (frames, number of the run), fewest first."""
    groups: dict[str, list[tuple[int, int]]] = {}
    for number, run in enumerate(runs):
        settings = dict(run.meta.settings) if run.meta and not run.meta.mixed else {}
        nframes = settings.pop("nframes", None)
        if type(nframes) is int:
            groups.setdefault(json.dumps(settings, sort_keys=True), []).append((nframes, number))
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _published(run: Run | None, source: str) -> Estimate | None:
    if run is None or run.published is None:
        return None
    found = [figure.accuracy for figure in run.published.figures if figure.source == source]
    return Estimate(run.published.rows, found[0], None) if found else None


def by_rounds(runs: Sequence[Run]) -> list[Group]:
    last = f"{MANY_ROUNDS} or more"

    def group(sample: Sample) -> Sequence[str]:
        if sample.rounds is None:
            return ()
        return (str(int(sample.rounds)) if sample.rounds < MANY_ROUNDS else last,)

    return accuracy_rows(runs, group, [*map(str, range(MANY_ROUNDS)), last])


def by_tokens(runs: Sequence[Run]) -> list[Group]:
    """Bins of about the same size, over all runs together."""
    edges = token_edges([sample.tokens for run in runs for sample in run.samples if sample.tokens is not None])
    if not edges:
        return []
    inner = [f"{low:,} to {high:,}" for low, high in pairwise(edges)]
    labels = [f"under {edges[0]:,}", *inner, f"{edges[-1]:,} and more"]
    return accuracy_rows(runs, _binned(labels, edges, lambda sample: sample.tokens), labels)


def by_length(runs: Sequence[Run]) -> list[Group]:
    return accuracy_rows(runs, _binned(LENGTHS, LENGTH_EDGES_S, lambda sample: sample.video_duration_s), LENGTHS)


def by_category(runs: Sequence[Run]) -> list[Group]:
    """The largest categories, largest first. Samples without one are UNKNOWN, so that none is left out."""

    def labels_of(sample: Sample) -> Sequence[str]:
        return sample.categories or (UNKNOWN,)

    counts = Counter(name for run in runs for sample in run.samples for name in labels_of(sample))
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return accuracy_rows(runs, labels_of, names[:MAX_CATEGORIES]) if counts.keys() - {UNKNOWN} else []


def by_stop_reason(runs: Sequence[Run]) -> list[Group]:
    """The share of each stop reason among all samples of the run; the rare ones together."""
    counts = Counter(sample.stop_reason for run in runs for sample in run.samples)
    names = [name for name, _ in counts.most_common(MAX_STOP_REASONS)]
    rest = counts.keys() - set(names)
    groups = [_ended_by(runs, name, {name}) for name in names]
    return [*groups, _ended_by(runs, f"other ({len(rest)} reasons)", rest)] if rest else groups


def _ended_by(runs: Sequence[Run], label: str, reasons: set[str]) -> Group:
    return Group(label, tuple(share(run, run.samples, lambda one: one.stop_reason in reasons) for run in runs))


def by_evidence(runs: Sequence[Run]) -> list[Group]:
    """The share of samples with a frame in the annotated time, then the accuracy with and without such a frame.

    Over the samples of which it is known.
    """
    known = [[one for one in run.samples if one.looked_into_reference is not None] for run in runs]
    if not any(known):
        return []
    pairs = list(zip(runs, known, strict=True))
    return [
        Group("Looked into the annotated time", tuple(share(run, ones, _looked) for run, ones in pairs)),
        Group("Accuracy where it looked", tuple(accuracy(run, list(filter(_looked, ones))) for run, ones in pairs)),
        Group(
            "Accuracy where it did not", tuple(accuracy(run, list(filterfalse(_looked, ones))) for run, ones in pairs)
        ),
    ]


def _looked(sample: Sample) -> bool:
    return bool(sample.looked_into_reference)


def accuracy_rows(runs: Sequence[Run], labels_of: Labels, labels: Sequence[str]) -> list[Group]:
    """The accuracy in each group, in the order of `labels`; groups without a sample are left out."""
    members = [(run, _members(run, labels_of)) for run in runs]
    rows = [
        Group(label, tuple(accuracy(run, by_label.get(label, ())) for run, by_label in members)) for label in labels
    ]
    return [row for row in rows if any(row.estimates)]


def accuracy(run: Run, samples: Sequence[Sample]) -> Estimate | None:
    """Of some samples of a run."""
    return share(run, samples, lambda sample: sample.correct)


def share(run: Run, samples: Sequence[Sample], has: Callable[[Sample], bool]) -> Estimate | None:
    """Of some samples of a run, those that have something; None of no samples."""
    if not samples:
        return None
    values = [has(sample) for sample in samples]
    interval = None if run.partial else share_interval([sample.video for sample in samples], values)
    return Estimate(len(values), sum(values) / len(values), interval)


def token_edges(tokens: Sequence[float]) -> list[int]:
    """The inner borders of at most TOKEN_BINS bins of about the same size, rounded to two digits."""
    bins = min(TOKEN_BINS, len(tokens) // FEWEST_PER_BIN)
    if bins < 2:
        return []
    borders = np.quantile(tokens, np.arange(1, bins) / bins)
    return sorted({int(float(f"{border:.1e}")) for border in borders})


def _members(run: Run, labels_of: Labels) -> dict[str, list[Sample]]:
    members: dict[str, list[Sample]] = {}
    for sample in run.samples:
        for label in labels_of(sample):
            members.setdefault(label, []).append(sample)
    return members


def _binned(labels: Sequence[str], edges: Sequence[float], measure: Callable[[Sample], float | None]) -> Labels:
    def group(sample: Sample) -> Sequence[str]:
        value = measure(sample)
        return () if value is None else (labels[bisect_right(edges, value)],)

    return group
