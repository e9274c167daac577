"""Result files -> the parts of a page: figures and rows as JSON, and the records in packed blocks."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from eva.json_text import json_text, mapping
from eva.protocol.stop_reasons import AGENT, INFRASTRUCTURE, SAMPLE
from eva.records.cache import encode
from eva.records.meta import Meta, read_meta
from eva.records.outcome import Outcome
from eva.records.result_file import read_records
from eva.records.schema import OWN_KEYS, Record, record_json
from eva.report.page import PER_BLOCK, packed_block
from eva.report.samples import Run, by_evidence, read_sample
from eva.report.trajectories import Step, first_difference, steps
from eva.scoring.figures import caveats, file_json, partial_lines
from eva.scoring.published import Published
from eva.scoring.result_file import Answered, ResultFile, dataset_of, named_dataset
from eva.scoring.time_use import time_figures, time_lines
from eva.text import printable

RIGHT, WRONG, UNANSWERED, FAILED = STATUSES = ("right", "wrong", "unanswered", "failed")


@dataclass(frozen=True)
class Source:
    """A result file, its meta file, what its samples are called on the page, and its dataset ('': nobody knows)."""

    path: Path
    meta: Meta | None
    key: str
    dataset: str


def read_sources(
    paths: Sequence[Path], published: Mapping[str, Published], *, names: Sequence[str] = (), compared: bool = False
) -> list[Source]:
    """Of finished files: their indices tell the dataset where no meta file does. Raises EvaError.

    Without `names` a run is called by its dataset or its file if these differ, else by the nearest folder that does.
    Two that are compared are of one dataset, so they have their names from their folders.
    """
    metas = [read_meta(path) for path in paths]
    datasets = []
    for path, meta in zip(paths, metas, strict=True):
        indices = set() if named_dataset(meta) else {record.index for record in read_records(path)}
        datasets.append(dataset_of(meta, indices, published))
    by_file = [file_key(path) for path in paths]
    by_dataset = [dataset or name for dataset, name in zip(datasets, by_file, strict=True)]
    resolved = [path.resolve() for path in paths]
    depth = min(len(path.parents) for path in resolved)
    by_folder = [[path.parents[level].name for path in resolved] for level in range(depth)]
    candidates = [*by_folder, by_file] if compared else [by_dataset, by_file, *by_folder]
    names = names or next((found for found in candidates if len(set(found)) == len(found)), by_dataset)
    keys: list[str] = []
    for name in names:
        keys.append(unique(name, keys))
    return [Source(*each) for each in zip(paths, metas, keys, datasets, strict=True)]


def file_key(path: Path) -> str:
    """What a file is called on the page whose dataset nobody knows: `result_cats.jsonl` is `cats`."""
    return path.stem.removeprefix("result_").removeprefix("cache_")


def unique(name: str, taken: Sequence[str]) -> str:
    """`name`, or the first of `name-2`, `name-3`, ... that is not taken, as it can stand in an address."""
    key = printable(name, limit=80) or "run"
    return next(one for one in chain([key], (f"{key}-{n}" for n in count(2))) if one not in taken)


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
    def outcome(self) -> Outcome:
        return self.answered.outcome


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
    *,
    ids: Collection[int] | None = None,
    statuses: Collection[str] = STATUSES,
) -> Collected:
    """Read a run, the `number`th of the page, in the order of its records.

    The page shows the samples with these indices (None: all) and these statuses.
    """
    answered, samples, shown = [], [], []
    blocks: list[str] = []
    lines: list[bytes] = []
    for record in records:
        samples.append(read_sample(source.dataset, record))
        answered.append(Answered(record.outcome, record.videos, samples[-1].categories))
        if (ids is None or record.index in ids) and status(record.outcome) in statuses:
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
    """The paths of all frames, each once, first those of the samples that people open first: those that are right in
    one of two compared runs only, then those that are not right."""
    right = [{one.outcome.index for one in run.shown if one.outcome.correct} for run in runs]
    both = set.intersection(*({one.outcome.index for one in run.shown} for run in runs))
    flips = (right[0] ^ right[-1]) & both if compared else set()
    ranks = {WRONG: 1, UNANSWERED: 2, FAILED: 2, RIGHT: 3}
    everything = [one for run in runs for one in run.shown]
    everything.sort(key=lambda one: 0 if one.outcome.index in flips else ranks[status(one.outcome)])
    return list(dict.fromkeys(name for one in everything for name in one.frames))


def differences(before: Collected, now: Collected) -> list[int | None]:
    """For each sample of `now` the first round that differs from that of `before`, counted from 0; None: the same
    course, or no such sample there."""
    other = {one.outcome.index: one.steps for one in before.shown}
    indices = [one.outcome.index for one in now.shown]
    return [
        first_difference(one.steps, other[index]) if index in other else None
        for index, one in zip(indices, now.shown, strict=True)
    ]


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

    outcomes = [one.outcome for one in shown]
    return {
        "index": [outcome.index for outcome in outcomes],
        "question": [one.question for one in shown],
        "truth": numbered(outcome.ground_truth for outcome in outcomes),
        "answer": numbered(outcome.answer for outcome in outcomes),
        "status": [STATUSES.index(status(outcome)) for outcome in outcomes],
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
        "evidence": [f"{label}: {one}" for label, one in by_evidence(collected.run).items() if one],
        "caveats": [*partial[:1], *caveats(file)],
        "settings": _rows(meta.settings if meta else {}),
        "environment": _rows({"started": ", ".join(started), **environment, **packages}),
        "time_use": time_lines(time_figures(sample.times for sample in collected.run.samples)),
        "started": max(started, default=""),
    }


def _rows(values: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(str(name), json_text(value)) for name, value in values.items() if value not in (None, "")]
