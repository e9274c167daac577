"""The settings of a run before anything runs: the files and folders of its dataset, and what makes a run impossible."""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from eva.errors import EvaError
from eva.files import PROJECT
from eva.frames.probing import FolderSilentError, is_folder
from eva.run.options import Options, SettingsError

# Where the names of cache and result are not made of the dataset's name.
_STEMS = {"mlvu": "mlvu_mcq"}


@dataclass(frozen=True)
class Dataset:
    """Where the questions and videos of a dataset are, and where its cache and result go."""

    jsonl: Path
    video_root: Path
    cache: Path
    result: Path


def known_datasets() -> dict[str, dict[str, str]]:
    """The six datasets and the demo: the paths of questions and videos, which begin in the checkout, and the names of
    cache and result."""
    files = json.loads((PROJECT / "data" / "manifest.json").read_text(encoding="utf-8"))["files"]
    known = {
        name: {
            "jsonl": f"data/{file['name']}",
            "video_root": f"data/videos/{name}",
            "cache": f"cache_{_STEMS.get(name, name)}.jsonl",
            "result": f"result_{_STEMS.get(name, name)}.jsonl",
        }
        for name, file in files.items()
    }
    demo = {"jsonl": "demo/data/demo.jsonl", "video_root": "demo/data/videos"}
    return {**known, "demo": {**demo, "cache": "cache_demo.jsonl", "result": "result_demo.jsonl"}}


def choose_dataset(options: Options, configured: Mapping[str, Mapping[str, str]]) -> Dataset:
    """A configured dataset, or another name with the questions and videos of the settings. Raises SettingsError."""
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
        jsonl=options.jsonl or PROJECT / config["jsonl"],
        video_root=_absolute(options.video_root or below_videos or PROJECT / config["video_root"]),
        cache=options.output_dir / config.get("cache", f"cache_{name}.jsonl"),
        result=options.output_dir / config.get("result", f"result_{name}.jsonl"),
    )


def _suggestion(name: str, configured: Collection[str]) -> str:
    """The start of a message about a name that is almost that of a dataset; otherwise empty."""
    close = difflib.get_close_matches(name.lower(), configured, n=1)
    return f"did you mean {close[0]}? It is " if close else ""


def check_settings(dataset: Dataset, options: Options) -> None:
    """Raises SettingsError for folders, files or packages that the run needs and does not have."""
    if options.ray is not None and importlib.util.find_spec("ray") is None:
        raise SettingsError("--ray needs the package ray: pip install -r requirements/ray.txt")
    for problem in find_problems(dataset, options):
        raise problem


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


def repeat(dataset: Dataset, options: Options, number: int) -> tuple[Dataset, Options]:
    """The files and the seed of one run of several, counted from 1."""
    files = replace(dataset, cache=numbered(dataset.cache, number), result=numbered(dataset.result, number))
    return files, replace(options, seed=None if options.seed is None else options.seed + number - 1)


def numbered(path: Path, number: int) -> Path:
    """`result_x.jsonl` -> `result_x.1.jsonl`."""
    return path.with_suffix(f".{number}{path.suffix}")
