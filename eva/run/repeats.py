"""--repeat N: the runs of one command, each with files and a seed of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eva.run.options import Options
from eva.run.settings import Dataset


def split_repeats(dataset: Dataset, options: Options) -> list[tuple[Dataset, Options]]:
    """The files and flags of each run; without --repeat those of the only one."""
    if options.repeat is None:
        return [(dataset, options)]
    return [(_numbered_files(dataset, k), _numbered_flags(options, k)) for k in range(1, options.repeat + 1)]


def _numbered_files(dataset: Dataset, number: int) -> Dataset:
    return replace(dataset, cache=_numbered(dataset.cache, number), result=_numbered(dataset.result, number))


def _numbered_flags(options: Options, number: int) -> Options:
    seed = None if options.seed is None else options.seed + number - 1
    return replace(options, seed=seed, json=options.json and _numbered(options.json, number))


def _numbered(path: Path, number: int) -> Path:
    """`result_x.jsonl` -> `result_x.1.jsonl`."""
    return path.with_suffix(f".{number}{path.suffix}")
