"""Result files -> the parts of a report: rows and figures in memory, details and thumbnails in blocks on disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from eva.records.meta import Meta, read_meta
from eva.records.result_file import read_records, read_scored
from eva.records.schema import Record
from eva.report.details import Detail, detail, frames_of
from eva.report.head import Head, make_head
from eva.report.page import PER_BLOCK, Blocks
from eva.report.rows import FAILED, RIGHT, UNANSWERED, WRONG, Row, columns, make_row
from eva.report.samples import Run, Sample, read_sample
from eva.report.thumbnail_blocks import ThumbnailBlocks
from eva.report.trajectories import Step, first_difference, steps
from eva.scoring.published import Published
from eva.scoring.result_file import Answered, ResultFile, dataset_of, named_dataset
from eva.text import printable


@dataclass(frozen=True)
class Source:
    """A result file, its meta file, the name of its samples on the page, and its dataset ('': nobody knows)."""

    path: Path
    meta: Meta | None
    key: str
    dataset: str

    @classmethod
    def of(cls, path: Path, meta: Meta | None, dataset: str, *, name: str = "", taken: Sequence[str] = ()) -> Source:
        """`name` is what the run is called; without one the dataset, or else the file, gives the name."""
        # The name becomes part of an address, so it holds no lone surrogate and is not empty.
        key = unique(printable(name or dataset or file_key(path), limit=80) or "run", taken)
        return cls(path, meta, key, dataset)

    @property
    def timestamps(self) -> str:
        return timestamps_of(self.meta)


def timestamps_of(meta: Meta | None) -> str:
    return str(meta.settings.get("timestamps")) if meta else "requested"


def read_sources(
    paths: Sequence[Path], published: Mapping[str, Published], *, names: Sequence[str] = (), compared: bool = False
) -> list[Source]:
    """Of finished files: their indices tell the dataset where no meta file does. Raises EvaError.

    Without `names` a run is called by its dataset, and by its folder where that does not tell one from the other.
    """
    metas = [read_meta(path) for path in paths]
    datasets = [_find_dataset(path, meta, published) for path, meta in zip(paths, metas, strict=True)]
    names = names or _names(paths, datasets, compared=compared)
    found: list[Source] = []
    for path, meta, dataset, name in zip(paths, metas, datasets, names, strict=True):
        found.append(Source.of(path, meta, dataset, name=name, taken=[source.key for source in found]))
    return found


def _find_dataset(path: Path, meta: Meta | None, published: Mapping[str, Published]) -> str:
    indices = set() if named_dataset(meta) else {record.index for record in read_records(path)}
    return dataset_of(meta, indices, published)


def _names(paths: Sequence[Path], datasets: Sequence[str], *, compared: bool) -> list[str]:
    """The datasets or the files if they all differ, else the nearest folders that do. Two that are compared are of one
    dataset, so they have their names from their folders."""
    by_dataset = [dataset or file_key(path) for path, dataset in zip(paths, datasets, strict=True)]
    resolved = [path.resolve() for path in paths]
    depth = min(len(path.parents) for path in resolved)
    by_folder = [[path.parents[level].name for path in resolved] for level in range(depth)]
    by_file = [file_key(path) for path in paths]
    candidates = [*by_folder, by_file] if compared else [by_dataset, by_file, *by_folder]
    return next((names for names in candidates if len(set(names)) == len(names)), by_dataset)


def file_key(path: Path) -> str:
    """What a file is called on the page whose dataset nobody knows: `result_cats.jsonl` is `cats`."""
    for beginning in ("result_", "cache_"):
        if path.stem.startswith(beginning):
            return path.stem.removeprefix(beginning)
    return path.stem


def unique(name: str, taken: Sequence[str]) -> str:
    """`name`, or the first of `name-2`, `name-3`, ... that is not taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


@dataclass(frozen=True)
class Choice:
    """Which samples a page shows: those with one of these indices and one of these statuses. None: all."""

    ids: frozenset[int] | None = None
    statuses: frozenset[str] | None = None

    def wants(self, row: Row) -> bool:
        return (self.ids is None or row.index in self.ids) and (self.statuses is None or row.status in self.statuses)


@dataclass
class Collected:
    """What is held of a run: small rows and numbers, no record.

    `rows`, `steps` and `frames` (the numbers of a sample's frames) are of the chosen samples, the rest is of all.
    """

    source: Source
    published: Mapping[str, Published]
    rows: list[Row] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    steps: list[tuple[Step, ...]] = field(default_factory=list)
    frames: list[array[int]] = field(default_factory=list)

    def add_all(self, records: Iterable[Record], choice: Choice) -> Iterator[tuple[Record, Row]]:
        """The chosen ones of the records, with their rows."""
        for record in records:
            row = make_row(record, self.source.dataset)
            self.answered.append(Answered(record.outcome, record.videos, row.categories))
            self.samples.append(read_sample(self.source.dataset, record))
            if choice.wants(row):
                self.rows.append(row)
                self.steps.append(steps(record))
                yield record, row

    @cached_property
    def file(self) -> ResultFile:
        """To be asked for when every record has been added."""
        return ResultFile.of(self.source.path, self.source.meta, self.answered, self.published)

    def head(self) -> Head:
        return make_head(self.chart_run(), self.file)

    def chart_run(self) -> Run:
        return make_run(self.source.key, self.file, self.samples)

    def columns(self) -> dict[str, Any]:
        return columns(self.rows)


def make_run(key: str, file: ResultFile, samples: Sequence[Sample]) -> Run:
    return Run(key, file.dataset, samples, file.published, file.coverage.partial, agent=file.agent, meta=file.meta)


def collect(collected: Collected, number: int, choice: Choice, blocks: Blocks, thumbnails: ThumbnailBlocks) -> None:
    """Read its result file once, in order; the details of its samples go to `blocks` as those of run `number`.

    Raises ResultError for a file that accuracy.py refuses too.
    """
    source = collected.source
    chosen = collected.add_all(read_scored(source.path), choice)
    for place, block in enumerate(_in_blocks(chosen)):
        details = [detail(record, row, timestamps=source.timestamps) for record, row in block]
        collected.frames += [_number_frames(sample, thumbnails) for sample in details]
        blocks.write_details(number, place, zip(details, (record for record, _ in block), strict=True))


def _in_blocks(chosen: Iterator[tuple[Record, Row]]) -> Iterator[list[tuple[Record, Row]]]:
    while found := list(islice(chosen, PER_BLOCK)):
        yield found


def _number_frames(sample: Detail, thumbnails: ThumbnailBlocks) -> array[int]:
    """Replace the path of every frame by its number."""
    frames = frames_of(sample)
    for frame in frames:
        frame["id"] = thumbnails.number(frame.pop("name"))
    return array("L", (frame["id"] for frame in frames))


def reading_order(runs: Sequence[Collected], *, compared: bool) -> Iterator[int]:
    """The numbers of all frames, first those of the samples that people open first."""
    flips = _flips(*runs) if compared else frozenset()
    ranks = {WRONG: 1, UNANSWERED: 2, FAILED: 2, RIGHT: 3}
    for wanted in range(4):
        for run in runs:
            for row, frames in zip(run.rows, run.frames, strict=True):
                if (0 if row.index in flips else ranks[row.status]) == wanted:
                    yield from frames


def _flips(before: Collected, now: Collected) -> frozenset[int]:
    """The indices that are right in one of the two only."""
    right = [{row.index for row in run.rows if row.status == RIGHT} for run in (before, now)]
    both = {row.index for row in before.rows} & {row.index for row in now.rows}
    return frozenset((right[0] ^ right[1]) & both)


def differences(before: Collected, now: Collected) -> list[int | None]:
    """For each sample of `now` the first round that differs from that of `before`, counted from 0; None: the same
    course, or no such sample there."""
    other = {row.index: steps for row, steps in zip(before.rows, before.steps, strict=True)}
    return [
        first_difference(steps, other[row.index]) if row.index in other else None
        for row, steps in zip(now.rows, now.steps, strict=True)
    ]
