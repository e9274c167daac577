"""A result file -> one side of a comparison: its samples by index, and what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from eva.records.meta import Meta
from eva.records.result_file import read_scored
from eva.records.schema import Record
from eva.scoring.categories import categories
from eva.scoring.compare import Answered, Comparison, compare, question_difference
from eva.scoring.coverage import Coverage
from eva.scoring.origin import find_origin
from eva.scoring.published import Published
from eva.scoring.score import Score, score
from eva.scoring.summary import partial_line, so_far_lines, unusable_lines


@dataclass(frozen=True)
class Side:
    """Of several lines for one index the last counts, as in a cache; `repeated` says how many did not, and `mixed` of
    which indices these were about another question. `dataset` is '' where nothing tells it."""

    path: Path
    meta: Meta | None
    dataset: str
    samples: Mapping[int, Answered]
    repeated: int
    mixed: tuple[int, ...]
    coverage: Coverage

    @property
    def figures(self) -> Score:
        outcomes = [sample.outcome for sample in self.samples.values()]
        return score(outcomes, total=len(outcomes) + (self.coverage.to_go or 0))


def read_side(path: Path, published: Mapping[str, Published]) -> Side:
    """Raises EvaError for a file that cannot be scored, and for a broken meta file beside it."""
    samples: dict[int, Answered] = {}
    light: dict[int, Record] = {}
    repeated, mixed = 0, set()
    for record in read_scored(path):
        sample, index = Answered(record.outcome, record.videos), record.index
        if index in samples:
            repeated += 1
            if question_difference(samples[index], sample):
                mixed.add(index)
        # All but these is small, and these can be gigabytes.
        samples[index], light[index] = sample, replace(record, messages="", trajectory=None)
    origin = find_origin(path, samples, published)
    named = {
        index: Answered(sample.outcome, sample.videos, categories(origin.dataset, light[index]))
        for index, sample in samples.items()
    }
    return Side(path, origin.meta, origin.dataset, named, repeated, tuple(sorted(mixed)), origin.coverage)


def compare_sides(a: Side, b: Side) -> Comparison:
    """Over the questions that they share; nothing is tested of an unfinished run. Raises DifferentQuestionsError."""
    return compare(a.samples, b.samples, partial=a.coverage.partial or b.coverage.partial)


def partial_lines(a: Side, b: Side) -> list[str]:
    """Which of the two is of an unfinished run, and what can be said of it so far."""
    return [line for name, side in (("A", a), ("B", b)) if side.coverage.partial for line in _so_far(name, side)]


def _so_far(name: str, side: Side) -> list[str]:
    figures, to_go = side.figures, side.coverage.to_go
    return [f"{partial_line(figures, to_go)} in {name}", *(f"{line} ({name})" for line in so_far_lines(figures, to_go))]


def same_settings(a: Side, b: Side) -> bool:
    """Whether nothing but chance and the servers made the two differ. Unknown settings are not the same."""
    if a.meta is None or b.meta is None:
        return False
    pure = not any(meta.mixed or meta.adopted for meta in (a.meta, b.meta))
    return pure and bool(a.meta.settings) and a.meta.settings == b.meta.settings


def side_notes(a: Side, b: Side) -> list[str]:
    """What a reader of the comparison must know of the two files."""
    notes = [note for name, side in (("A", a), ("B", b)) for note in _notes(name, side)]
    if a.dataset and b.dataset and a.dataset != b.dataset:
        notes.append(f"The two are of different datasets: {a.dataset} and {b.dataset}")
    if a.meta and b.meta:
        before, now = a.meta.settings, b.meta.settings
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        notes += [f"Settings: {name} is {before.get(name)!r} in A, {now.get(name)!r} in B" for name in names]
    return notes


def _notes(name: str, side: Side) -> list[str]:
    notes = []
    if side.repeated:
        notes.append(f"{name} has {side.repeated} lines for an index that a later line has too: the last one counts")
    if side.mixed:
        notes.append(
            f"{name} mixes question sets: {len(side.mixed)} indices stand for two questions each, first {side.mixed[0]}"
        )
    if side.meta and side.meta.mixed:
        notes.append(f"{name} is mixed: parts of it were made with different settings")
    return notes + [f"{name}: {line}, left out where {name} is compared" for line in unusable_lines(side.figures)]
