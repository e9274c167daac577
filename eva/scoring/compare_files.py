"""Two result files -> their comparison, and what its reader must know of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eva.records.meta import differing, known_weights, read_meta
from eva.records.result_file import read_scored
from eva.scoring.categories import categories
from eva.scoring.compare import Answered, Comparison, compare, question_difference
from eva.scoring.origin import Origin, describe_agent, find_origin
from eva.scoring.published import Published
from eva.scoring.score import Score
from eva.scoring.summary import partial_line, so_far_lines, unusable_lines


@dataclass(frozen=True)
class AnsweredFile:
    """All lines of a result or a cache, in their order."""

    origin: Origin
    lines: Sequence[Answered]


@dataclass(frozen=True)
class ComparedResult:
    """A result as one of the two that are compared. Of several lines for one index the last counts, as in a cache.

    `repeated` is the number of lines that do not count. `mixed` are the indices that stand for two questions.
    """

    origin: Origin
    samples: Mapping[int, Answered]
    repeated: int
    mixed: tuple[int, ...]

    @classmethod
    def of(cls, origin: Origin, lines: Iterable[Answered]) -> ComparedResult:
        """`lines` in the order of the file."""
        samples: dict[int, Answered] = {}
        repeated, mixed = 0, set()
        for sample in lines:
            earlier = samples.get(sample.outcome.index)
            if earlier is not None:
                repeated += 1
                if question_difference(earlier, sample):
                    mixed.add(sample.outcome.index)
            samples[sample.outcome.index] = sample
        return cls(origin, samples, repeated, tuple(sorted(mixed)))

    @property
    def partial(self) -> bool:
        return self.origin.coverage.partial

    @property
    def score(self) -> Score:
        return Score([sample.outcome for sample in self.samples.values()], self.origin.coverage.to_go)

    @property
    def agent(self) -> str:
        return describe_agent((sample.outcome for sample in self.samples.values()), self.origin.meta)


def read_compared(path: Path, published: Mapping[str, Published]) -> ComparedResult:
    """See read_answered."""
    file = read_answered(path, published)
    return ComparedResult.of(file.origin, file.lines)


def read_answered(path: Path, published: Mapping[str, Published]) -> AnsweredFile:
    """Raises EvaError for a file that cannot be scored, and for a broken meta file beside it."""
    # The categories depend on the dataset, and the dataset can depend on all indices.
    # What is not small can be gigabytes.
    records = [replace(record, messages="", trajectory=None) for record in read_scored(path)]
    origin = find_origin(path, read_meta(path), {record.index for record in records}, published)
    lines = [Answered(one.outcome, one.videos, categories(origin.dataset, one)) for one in records]
    return AnsweredFile(origin, lines)


def compare_results(a: ComparedResult, b: ComparedResult) -> Comparison:
    """Over the questions that both have. Nothing is tested of an unfinished run. Raises DifferentQuestionsError."""
    return compare(a.samples, b.samples, partial=a.partial or b.partial)


def same_settings(a: ComparedResult, b: ComparedResult) -> bool:
    """Whether the two can differ by chance and by their servers alone. Unknown settings are not the same."""
    before, now = a.origin.meta, b.origin.meta
    if before is None or now is None or any(meta.mixed or meta.adopted for meta in (before, now)):
        return False
    return bool(before.settings and now.settings) and not differing(before.settings, now.settings)


def partial_lines(a: ComparedResult, b: ComparedResult) -> list[str]:
    """Which of the two is of an unfinished run, and what can be said of it so far."""
    return [line for name, one in (("A", a), ("B", b)) if one.partial for line in named_so_far_lines(name, one.score)]


def named_so_far_lines(name: str, score: Score) -> list[str]:
    """What can be said of an unfinished run, with its name in each line."""
    return [f"{partial_line(score)} in {name}", *(f"{line} ({name})" for line in so_far_lines(score))]


def note_lines(a: ComparedResult, b: ComparedResult, names: tuple[str, str] = ("A", "B")) -> list[str]:
    """What a reader of the comparison must know of the two files, which are called by `names`."""
    notes = [note for name, one in zip(names, (a, b), strict=True) for note in _notes(name, one)]
    datasets = a.origin.dataset, b.origin.dataset
    if all(datasets) and datasets[0] != datasets[1]:
        notes.append(f"The two are of different datasets: {datasets[0]} and {datasets[1]}")
    if a.origin.meta and b.origin.meta:
        notes += _settings_notes(a.origin.meta.settings, b.origin.meta.settings, names)
    return notes


def _settings_notes(a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    if different := differing(a, b):
        one, other = names
        return [f"Settings: {name} is {a.get(name)!r} in {one}, {b.get(name)!r} in {other}" for name in different]
    unknown = [name for name, settings in zip(names, (a, b), strict=True) if settings and not known_weights(settings)]
    return [f"The weights of {' and '.join(unknown)} are unknown, and not compared"] if unknown else []


def _notes(name: str, one: ComparedResult) -> list[str]:
    notes = []
    if one.repeated:
        notes.append(f"{name} has {one.repeated} lines for an index that a later line has too: the last one counts")
    if one.mixed:
        notes.append(
            f"{name} mixes question sets: {len(one.mixed)} indices stand for two questions each, first {one.mixed[0]}"
        )
    if one.origin.meta and one.origin.meta.mixed:
        notes.append(f"{name} is mixed: parts of it were made with different settings")
    return notes + [f"{name}: {line}, left out where {name} is compared" for line in unusable_lines(one.score)]
