"""Result files -> what a report is made of: rows and figures in memory, details and thumbnails in blocks on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from eva.records.meta import read_meta
from eva.records.outcome import Outcome
from eva.records.result_file import read_records, read_scored
from eva.records.schema import Record
from eva.report.details import Detail, detail, frames_of
from eva.report.head import Head, Known, make_head
from eva.report.page import Blocks
from eva.report.rows import Row, columns, make_row
from eva.report.samples import Run, Sample, read_sample
from eva.report.thumbnail_blocks import Album
from eva.report.trajectories import Step, first_difference, steps
from eva.scoring.origin import Origin, dataset_of, find_origin, named_dataset
from eva.text import printable

# Samples per block of details, as the page's script reads them.
BLOCK = 100


@dataclass(frozen=True)
class Source:
    """A result file, the name that its samples are known by on the page, and the dataset that it is of ('': nobody
    knows)."""

    path: Path
    key: str
    dataset: str
    timestamps: str

    @classmethod
    def of(cls, path: Path, dataset: str, *, taken: Sequence[str] = ()) -> Source:
        """Raises EvaError for a broken meta file."""
        meta = read_meta(path)
        timestamps = str(meta.settings.get("timestamps")) if meta else "requested"
        # The name becomes part of an address, so it holds no lone surrogate and is not empty.
        return cls(path, unique(printable(dataset or file_key(path), limit=80) or "run", taken), dataset, timestamps)


def read_source(path: Path, known: Known, *, taken: Sequence[str] = ()) -> Source:
    """Of a finished file, whose indices tell the dataset where no meta file does. Raises EvaError."""
    meta = read_meta(path)
    indices = set() if named_dataset(meta) else {record.index for record in read_records(path)}
    return Source.of(path, dataset_of(meta, indices, known.published), taken=taken)


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


@dataclass
class Collected:
    """What is held of a run: small rows and numbers, no record."""

    source: Source
    rows: list[Row] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    steps: list[tuple[Step, ...]] = field(default_factory=list)

    def add(self, record: Record) -> Row:
        row = make_row(record, self.source.dataset)
        self.rows.append(row)
        self.outcomes.append(record.outcome)
        self.samples.append(read_sample(self.source.dataset, record))
        self.steps.append(steps(record))
        return row

    def head(self, known: Known) -> Head:
        return make_head(self.source.path, self.source.key, self.outcomes, self.samples, known)

    def chart_run(self, known: Known) -> Run:
        origin = find_origin(self.source.path, {outcome.index for outcome in self.outcomes}, known.published)
        return make_run(self.source.key, origin, self.samples)

    def columns(self) -> dict[str, Any]:
        return columns(self.rows)


def make_run(key: str, origin: Origin, samples: Sequence[Sample]) -> Run:
    figures = origin.published.figures if origin.published else ()
    return Run(key, origin.dataset, samples, figures, partial=origin.coverage.partial)


def collect(source: Source, number: int, blocks: Blocks, album: Album) -> Collected:
    """Read a result file once, in order; the details of its samples go to `blocks` as those of run `number`.

    Raises ResultError for a file that accuracy.py refuses too.
    """
    collected = Collected(source)
    for place, records in enumerate(in_blocks(read_scored(source.path))):
        details = [detail(record, collected.add(record), timestamps=source.timestamps) for record in records]
        _settle_frames(details, album)
        blocks.write_details(number, place, details)
    return collected


def in_blocks(records: Iterable[Record]) -> Iterator[list[Record]]:
    rest = iter(records)
    while found := list(islice(rest, BLOCK)):
        yield found


def _settle_frames(details: Sequence[Detail], album: Album) -> None:
    """Say of every frame where the page finds it, in place of its path."""
    frames = [frame for sample in details for frame in frames_of(sample)]
    album.take(frame["name"] for frame in frames)
    for frame in frames:
        frame.update(album.place(frame.pop("name")))


def differences(ours: Collected, theirs: Collected) -> list[int | None]:
    """For each of our samples the first round in which the other run's differs, counted from 0; None: the same
    course, or no such sample there."""
    other = {row.index: their for row, their in zip(theirs.rows, theirs.steps, strict=True)}
    return [
        first_difference(our, other[row.index]) if row.index in other else None
        for row, our in zip(ours.rows, ours.steps, strict=True)
    ]
