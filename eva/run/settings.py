"""The settings of a run before anything runs: the files and folders of its dataset, and what makes a run impossible."""

from __future__ import annotations

import difflib
import importlib.util
import io
import re
import select
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO, cast

from eva.errors import EvaError
from eva.frames.probing import FolderSilentError, is_folder
from eva.run.options import Options

NO_ANSWER = "--new-cache and --retry-error ask first, and standard input ends without an answer: add --yes"


class SettingsError(EvaError):
    """Settings with which no run can start."""


@dataclass(frozen=True)
class Dataset:
    """Where the questions and videos of a dataset are, and where its cache and result go."""

    jsonl: Path
    video_root: Path
    cache: Path
    result: Path


def choose_dataset(options: Options, configured: Mapping[str, Mapping[str, str]], home: Path) -> Dataset:
    """A configured dataset, or another name with the questions and videos of the flags. Raises SettingsError.

    The configured paths of questions and videos begin in `home`.
    """
    name, config = options.dataset, configured.get(options.dataset, {})
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SettingsError(f"--dataset {name!r}: the name goes into file names; use letters, digits, '.', '_', '-'")
    if not config and not (options.jsonl and (options.video_root or options.videos)):
        raise SettingsError(
            f"--dataset {name}: {_suggestion(name, configured)}not one of {', '.join(configured)}; "
            "a question set of your own needs --jsonl and --video-root"
        )
    below_videos = options.videos / name if options.videos else None
    return Dataset(
        jsonl=options.jsonl or home / config["jsonl"],
        video_root=_absolute(options.video_root or below_videos or home / config["video_root"]),
        cache=options.output_dir / config.get("cache", f"cache_{name}.jsonl"),
        result=options.output_dir / config.get("result", f"result_{name}.jsonl"),
    )


def _suggestion(name: str, configured: Collection[str]) -> str:
    """The start of a message about a name that is almost that of a dataset; otherwise empty."""
    close = difflib.get_close_matches(name.lower(), configured, n=1)
    return f"did you mean {close[0]}? It is " if close else ""


def check_settings(dataset: Dataset, options: Options) -> None:
    """Raises SettingsError for folders, files, packages or a terminal that the run needs and does not have."""
    if (options.new_cache or options.retry_error) and not options.yes and _has_ended(sys.stdin):
        raise SettingsError(NO_ANSWER)
    if (options.new_cache or options.retry_error) and options.repeat and not options.yes:
        raise SettingsError("--new-cache and --retry-error would ask before each run of --repeat: add --yes")
    if options.ray is not None and importlib.util.find_spec("ray") is None:
        raise SettingsError("--ray needs the package ray: pip install -r requirements/ray.txt")
    for problem in find_problems(dataset, options):
        raise problem


def _has_ended(stdin: TextIO) -> bool:
    """Whether it is already certain that nobody answers. An answer may still come through a pipe."""
    if stdin.isatty() or not select.select([stdin], [], [], 0)[0]:
        return False
    return not cast(io.BufferedReader, stdin.buffer).peek(1)


def find_problems(dataset: Dataset, options: Options) -> Iterator[EvaError]:
    """The folders, files and packages that the run needs here and does not have. Each node of a cluster checks its own
    folders."""
    if options.ray is None:
        yield from _video_folder_problem(dataset.video_root)
        yield from _writing_problem("--frame-root", options.frame_root)
    if not options.frame_tool.is_file():
        yield SettingsError(f"there is no frame tool {options.frame_tool}: give it with --frame-tool")
    if options.backend == "decord" and importlib.util.find_spec("decord") is None:
        yield SettingsError("--backend decord: the package decord is not installed (pip install decord)")
    yield from _writing_problem("--output-dir", options.output_dir)


def _video_folder_problem(folder: Path) -> Iterator[EvaError]:
    try:
        if not is_folder(folder):
            yield SettingsError(f"there is no video folder {folder}: give it with --video-root or --videos")
    except FolderSilentError as error:
        yield error


def _writing_problem(flag: str, folder: Path) -> Iterator[EvaError]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield SettingsError(f"{flag} {folder} cannot be written to: {error.strerror}")


def _absolute(path: Path) -> Path:
    """The absolute path; `$SCRATCH/videos` stays, because each node of a cluster expands it."""
    return path if str(path).startswith("$") else path.absolute()


def with_absolute_paths(options: Options) -> Options:
    """The same flags for a process that has another working folder."""
    tokenizer = Path(options.tokenizer)
    return replace(
        options,
        frame_tool=options.frame_tool.absolute(),
        frame_root=_absolute(options.frame_root),
        tokenizer=str(tokenizer.absolute()) if tokenizer.is_dir() else options.tokenizer,
    )


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
