"""Result files -> the parts of a page: figures and rows as JSON, and the records in packed blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.json_text import json_text, mapping
from eva.protocol.stop_reasons import AGENT, INFRASTRUCTURE, SAMPLE
from eva.records.cache import encode
from eva.records.meta import Meta, read_meta
from eva.records.outcome import Outcome
from eva.records.result_file import read_records
from eva.records.schema import OWN_KEYS, Record, record_json
from eva.report.grouping import by_evidence
from eva.report.page import PER_BLOCK, packed_block
from eva.report.samples import Run, read_sample
from eva.report.trajectories import Step, first_difference, steps
from eva.scoring.figures import caveats, file_json, partial_lines
from eva.scoring.published import Published
from eva.scoring.result_file import Answered, ResultFile, dataset_of, named_dataset
from eva.scoring.time_use import time_figures, time_lines
from eva.text import printable

RIGHT, WRONG, UNANSWERED, FAILED = STATUSES = ("right", "wrong", "unanswered", "failed")


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


def status(outcome: Outcome) -> str:
    """One of STATUSES. Right is what accuracy counts; of the rest, whether an answer was given, and whose failure
    it is that there is none."""
    if outcome.correct:
        return RIGHT
    if outcome.failure in (SAMPLE, INFRASTRUCTURE, AGENT):
        return FAILED
    return WRONG if outcome.answer.strip() else UNANSWERED


@dataclass(frozen=True)
class Shown:
    """A sample that the page shows; `frames` are the paths of its frames."""

    answered: Answered
    question: str
    steps: tuple[Step, ...]
    frames: tuple[str, ...]

    @property
    def index(self) -> int:
        return self.answered.outcome.index

    @property
    def status(self) -> str:
        return status(self.answered.outcome)


@dataclass(frozen=True)
class Collected:
    """What the page needs of a run: small parts of all samples for figures and charts, and of those that it shows; and
    the records of these, packed as blocks of the page."""

    file: ResultFile
    run: Run
    shown: Sequence[Shown]
    blocks: Sequence[str]


def collect(
    source: Source,
    number: int,
    records: Iterable[Record],
    published: Mapping[str, Published],
    wants: Callable[[Outcome], bool] = lambda outcome: True,
) -> Collected:
    """Read a run, the `number`th of the page, in the order of its records. `wants` chooses what the page shows."""
    answered, samples, shown = [], [], []
    blocks: list[str] = []
    lines: list[bytes] = []
    for record in records:
        samples.append(read_sample(source.dataset, record))
        answered.append(Answered(record.outcome, record.videos, samples[-1].categories))
        if wants(record.outcome):
            if len(lines) == PER_BLOCK:
                blocks.append(packed_block(f"records-{number}-{len(blocks)}", lines))
                lines.clear()
            shown.append(Shown(answered[-1], record.question, steps(record), _frames(record)))
            lines.append(_line(record))
    blocks.append(packed_block(f"records-{number}-{len(blocks)}", lines))
    file = ResultFile.of(source.path, source.meta, answered, published)
    partial = file.coverage.partial
    run = Run(source.key, file.dataset, samples, file.published, partial, agent=file.agent, meta=file.meta)
    return Collected(file, run, shown, blocks)


def _frames(record: Record) -> tuple[str, ...]:
    calls = [*record.looks, *(call for round_ in record.rounds for call in round_.calls)]
    return tuple(name for call in calls for name in call.frames)


def _line(record: Record) -> bytes:
    """A browser reads no NaN; in its place stands null."""
    value = record_json(record)
    try:
        return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="backslashreplace")
    except ValueError:
        return encode(json.loads(json.dumps(value), parse_constant=lambda name: None))


def reading_order(runs: Sequence[Collected], *, compared: bool) -> list[str]:
    """The paths of all frames, each once, first those of the samples that people open first."""
    flips = _flips(*runs) if compared else frozenset()
    ranks = {WRONG: 1, UNANSWERED: 2, FAILED: 2, RIGHT: 3}
    everything = [one for run in runs for one in run.shown]
    everything.sort(key=lambda one: 0 if one.index in flips else ranks[one.status])
    return list(dict.fromkeys(name for one in everything for name in one.frames))


def _flips(before: Collected, now: Collected) -> frozenset[int]:
    """The indices that are right in one of the two only."""
    right = [{one.index for one in run.shown if one.status == RIGHT} for run in (before, now)]
    both = {one.index for one in before.shown} & {one.index for one in now.shown}
    return frozenset((right[0] ^ right[1]) & both)


def differences(before: Collected, now: Collected) -> list[int | None]:
    """For each sample of `now` the first round that differs from that of `before`, counted from 0; None: the same
    course, or no such sample there."""
    other = {one.index: one.steps for one in before.shown}
    return [first_difference(one.steps, other[one.index]) if one.index in other else None for one in now.shown]


# --- what the beginning of the page holds


def page_data(runs: Sequence[Collected], settings: Mapping[str, object]) -> dict[str, Any]:
    """The JSON blocks of the page's beginning, by name."""
    return {
        "settings": {"per_block": PER_BLOCK, "statuses": STATUSES, "known": sorted(OWN_KEYS), **settings},
        "heads": [make_head(run) for run in runs],
        **{f"rows-{number}": columns(run.shown) for number, run in enumerate(runs)},
    }


def columns(shown: Sequence[Shown]) -> dict[str, Any]:
    """The rows of the table, one list per column, so that ten thousand open at once; texts that repeat stand once in
    `names` and are numbers in their columns."""
    names: dict[str, int] = {}

    def numbered(texts: Iterable[str]) -> list[int]:
        return [names.setdefault(text, len(names)) for text in texts]

    outcomes = [one.answered.outcome for one in shown]
    return {
        "index": [outcome.index for outcome in outcomes],
        "question": [one.question for one in shown],
        "truth": numbered(outcome.ground_truth for outcome in outcomes),
        "answer": numbered(outcome.answer for outcome in outcomes),
        "status": [STATUSES.index(one.status) for one in shown],
        "stop": numbered(outcome.stop_reason for outcome in outcomes),
        "rounds": [outcome.num_rounds for outcome in outcomes],
        "tokens": [outcome.total_tokens for outcome in outcomes],
        "seconds": [outcome.seconds for outcome in outcomes],
        "video": numbered(outcome.video for outcome in outcomes),
        "categories": [numbered(one.answered.categories) for one in shown],
        "names": list(names),
    }


def make_head(collected: Collected) -> dict[str, Any]:
    """The figures as `accuracy.py --json` has them, and what the run was made with."""
    file, meta = collected.file, collected.file.meta
    environment = dict(meta.environment) if meta else {}
    packages = mapping(environment.pop("packages", {}))
    started = list(map(str, meta.started)) if meta else []
    partial = partial_lines(file.score)
    return {
        **file_json(file),
        "key": collected.run.name,
        "agent": file.agent,
        "so_far": partial[1] if partial else "",
        "evidence": [f"{row.label}: {one}" for row in by_evidence([collected.run]) for one in row.estimates if one],
        "caveats": [*partial[:1], *caveats(file)],
        "settings": _rows(meta.settings if meta else {}),
        "environment": _rows({"started": ", ".join(started), **environment, **packages}),
        "time_use": time_lines(time_figures(sample.times for sample in collected.run.samples)),
        "started": max(started, default=""),
    }


def _rows(values: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(str(name), json_text(value)) for name, value in values.items() if value not in (None, "")]
