#!/usr/bin/env python3
"""Evaluate EVA on a multiple-choice video dataset: items -> agent loop -> cache -> result -> summary.

Exit codes: 0 the run finished; 1 it was called off or failed on the way; 2 unusable arguments or settings, found
before any model call; 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib.util
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from eva.errors import EvaError
from eva.items import Item, load_items
from eva.look import Looker, LookSettings
from eva.model import ChatModel, connect
from eva.record import Record
from eva.records import Cache, open_cache
from eva.sample import Sampler
from eva.scoring import score
from eva.summary import summary_lines
from eva.tool import FrameTool
from eva.transcript import Transcribe, load_transcriber
from eva.video import probe

# The settings of a run. Every one of them can be given as a flag, which wins.
BASE_URL = "http://127.0.0.1:8000/v1"
API_KEY = "EMPTY"
MODEL_TOKENIZER_PATH = "models/EVA"
FRAME_TOOL_PATH = "select_frame_fallback.py"
FRAME_SAVE_ROOT = "/tmp/eva-frames"  # noqa: S108  the server must be told the same folder

DATASET_CONFIG = {
    "videomme": {
        "jsonl": "data/videomme_test_wosubtitles_raw_list_full.jsonl",
        "video_root": "data/videos/videomme",
        "cache": "cache_videomme.jsonl",
        "result": "result_videomme.jsonl",
    },
    "longvideobench": {
        "jsonl": "data/LongVideoBench_nosub_raw_full.jsonl",
        "video_root": "data/videos/longvideobench",
        "cache": "cache_longvideobench.jsonl",
        "result": "result_longvideobench.jsonl",
    },
    "mlvu": {
        "jsonl": "data/MLVU_MCQ_raw_full.jsonl",
        "video_root": "data/videos/mlvu",
        "cache": "cache_mlvu_mcq.jsonl",
        "result": "result_mlvu_mcq.jsonl",
    },
    "lsdbench": {
        "jsonl": "data/LSDBench_raw_full.jsonl",
        "video_root": "data/videos/lsdbench",
        "cache": "cache_lsdbench.jsonl",
        "result": "result_lsdbench.jsonl",
    },
    "videoholmes": {
        "jsonl": "data/videoholmes_raw_full.jsonl",
        "video_root": "data/videos/videoholmes",
        "cache": "cache_videoholmes.jsonl",
        "result": "result_videoholmes.jsonl",
    },
    "lvbench": {
        "jsonl": "data/LVBench_raw_full_root.jsonl",
        "video_root": "data/videos/lvbench",
        "cache": "cache_lvbench.jsonl",
        "result": "result_lvbench.jsonl",
    },
}

HOME = Path(__file__).resolve().parent


class SettingsError(EvaError):
    """Settings with which no run can start."""


class RunFailed(EvaError):
    """A run that was called off, or that cannot go on; what finished is in the cache."""


@dataclass(frozen=True)
class Dataset:
    """Where a dataset's questions and videos are, and where its cache and result go."""

    jsonl: Path
    video_root: Path
    cache: Path
    result: Path


def main() -> int:
    options = parse_options()
    try:
        asyncio.run(evaluate(options))
    except RunFailed as error:
        return fail(str(error), 1)
    except EvaError as error:
        return fail(str(error), 2)
    except KeyboardInterrupt:
        return fail("interrupted; what finished is in the cache, and the same command goes on from there", 130)
    return 0


async def evaluate(options: argparse.Namespace) -> None:
    """The whole run, in order. Raises RunFailed once model calls may have been made, any other EvaError before."""
    dataset = choose_dataset(options)
    items = choose_items(load_annotations(dataset.jsonl, options.dataset), options)
    check_settings(dataset, options)
    transcribe = load_transcriber(options.tokenizer)
    with open_cache(dataset.cache, warn) as cache:
        forgotten = outdated(cache, items, options)
        pending = [item for item in items if item.index in forgotten or item.index not in cache.outcomes]
        sampler = make_sampler(await connect_to(options), transcribe, dataset, options) if pending else None
        forget(cache, forgotten, options)
        try:
            if sampler is not None:
                await run_all(pending, sampler.run, cache, options.max_concurrent)
            cache.merge(dataset.result)
        except EvaError as error:
            raise RunFailed(str(error)) from error
        print_summary(items, cache, dataset)


def choose_dataset(options: argparse.Namespace) -> Dataset:
    """The configured dataset, or any name whose questions and videos the flags give."""
    name, config = options.dataset, DATASET_CONFIG.get(options.dataset, {})
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SettingsError(f"--dataset {name!r}: the name goes into file names; use letters, digits, '.', '_', '-'")
    if not config and not (options.jsonl and options.video_root):
        raise SettingsError(
            f"--dataset {name}: not one of {', '.join(DATASET_CONFIG)}; "
            "a question set of your own needs --jsonl and --video-root"
        )
    return Dataset(
        jsonl=options.jsonl or HOME / config["jsonl"],
        video_root=(options.video_root or HOME / config["video_root"]).absolute(),
        cache=options.output_dir / config.get("cache", f"cache_{name}.jsonl"),
        result=options.output_dir / config.get("result", f"result_{name}.jsonl"),
    )


def load_annotations(jsonl: Path, name: str) -> list[Item]:
    if not jsonl.exists() and name in DATASET_CONFIG:
        raise SettingsError(f"there is no annotation file {jsonl}: run  python data/fetch.py {name}")
    return load_items(jsonl)


def choose_items(items: Sequence[Item], options: argparse.Namespace) -> list[Item]:
    """The items of --ids, of these the first --sample; all without either."""
    if options.ids is not None:
        unknown = sorted(options.ids - {item.index for item in items})
        if unknown:
            raise SettingsError(f"--ids: there is no item {', '.join(map(str, unknown[:10]))} in the annotation file")
        items = [item for item in items if item.index in options.ids]
    return list(items[: options.sample])


def check_settings(dataset: Dataset, options: argparse.Namespace) -> None:
    if (options.new_cache or options.retry_error) and not options.yes and not sys.stdin.isatty():
        raise SettingsError("--new-cache and --retry-error ask first, and there is no terminal to ask on: add --yes")
    if not dataset.video_root.is_dir():
        raise SettingsError(f"there is no video folder {dataset.video_root}: give it with --video-root")
    if not options.frame_tool.is_file():
        raise SettingsError(f"there is no frame tool {options.frame_tool}: give it with --frame-tool")
    if options.backend == "decord" and importlib.util.find_spec("decord") is None:
        raise SettingsError("--backend decord: the package decord is not installed (pip install decord)")
    for flag, folder in (("--frame-root", options.frame_root), ("--output-dir", options.output_dir)):
        check_writable(flag, folder)


def check_writable(flag: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"{flag} {folder} cannot be written to: {error.strerror}") from error


def outdated(cache: Cache, items: Sequence[Item], options: argparse.Namespace) -> frozenset[int]:
    """The recorded indices that --new-cache or --retry-error runs again."""
    if options.new_cache:
        return frozenset(cache.outcomes)
    chosen = {item.index for item in items} if options.retry_error else set()
    return frozenset(index for index, outcome in cache.outcomes.items() if index in chosen and not outcome.settled)


def forget(cache: Cache, indices: Collection[int], options: argparse.Namespace) -> None:
    """Take the outdated records out of the cache, after asking."""
    if options.new_cache:
        confirm(f"Delete the cache {cache.path} with its {len(indices)} records?", options)
        cache.clear()
    elif options.retry_error:
        confirm(f"Drop {len(indices)} failed records from {cache.path} and run them again?", options)
        cache.drop(indices)


def confirm(question: str, options: argparse.Namespace) -> None:
    if options.yes:
        return
    print(f"{question} (y/N) ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RunFailed("called off; nothing was changed")


async def connect_to(options: argparse.Namespace) -> ChatModel:
    return await connect(
        base_url=options.base_url,
        api_key=options.api_key,
        model=options.model,
        timeout_s=options.request_timeout,
    )


def make_sampler(model: ChatModel, transcribe: Transcribe, dataset: Dataset, options: argparse.Namespace) -> Sampler:
    tool = FrameTool(
        path=options.frame_tool.absolute(),
        save_root=options.frame_root.absolute(),
        slots=asyncio.Semaphore(options.frame_workers),
        backend=options.backend,
        fallback=options.fallback,
        timeout_s=options.frame_timeout,
    )
    settings = LookSettings(
        max_visual_tokens=options.max_visual_tokens,
        maxp=options.maxp,
        timestamps=options.timestamps,
        image_transport=options.image_transport,
    )
    return Sampler(
        model=model,
        looker=Looker(tool, settings),
        # Many questions ask of one video.
        probe=functools.lru_cache(maxsize=None)(probe),
        transcribe=transcribe,
        video_root=dataset.video_root,
        max_turns=options.max_turns,
        report=warn,
    )


async def run_all(
    items: Sequence[Item], run: Callable[[Item], Awaitable[Record]], cache: Cache, max_concurrent: int
) -> None:
    """Run the items, at most `max_concurrent` at a time; each record is on disk as soon as it is there."""
    waiting = deque(items)
    # A log file gets a line now and then, a terminal a bar that moves.
    with tqdm(total=len(items), unit="sample", mininterval=0.5 if sys.stderr.isatty() else 30) as progress:

        async def work() -> None:
            while waiting:
                cache.append(await run(waiting.popleft()))
                progress.update()

        workers = [asyncio.create_task(work()) for _ in range(min(max_concurrent, len(items)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def print_summary(items: Sequence[Item], cache: Cache, dataset: Dataset) -> None:
    outcomes = cache.outcomes
    recorded = [outcomes[item.index] for item in items if item.index in outcomes]
    print("\n".join(summary_lines(score(recorded, total=len(items)))))
    print(f"Result: {dataset.result}")


def warn(message: str) -> None:
    tqdm.write(f"eval-eva.py: {message}", file=sys.stderr)


def fail(message: str, code: int) -> int:
    print(f"eval-eva.py: {message}", file=sys.stderr)
    return code


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Evaluate EVA on a multiple-choice video dataset.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_data_options(parser.add_argument_group("data"))
    add_server_options(parser.add_argument_group("server"))
    add_agent_options(parser.add_argument_group("agent"))
    add_frame_options(parser.add_argument_group("frames"))
    add_run_options(parser.add_argument_group("run"))
    return parser.parse_args()


def add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--dataset", required=True, help=f"one of {', '.join(DATASET_CONFIG)}, or a name of your own")
    group.add_argument("--jsonl", type=Path, help="annotation file (default: the dataset's)")
    group.add_argument("--video-root", type=Path, help="folder of the videos (default: the dataset's)")
    group.add_argument("--sample", type=positive, metavar="N", help="run the first N items")
    group.add_argument("--ids", type=index_set, metavar="I,J-K", help="run these indices, such as 3,17,40-60")
    group.add_argument("--output-dir", type=Path, default=Path(), help="folder of cache and result")


def add_server_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--base-url", default=BASE_URL, help="the server's /v1 address")
    group.add_argument("--api-key", default=API_KEY)
    group.add_argument("--model", help="name of the served model (default: the first that the server lists)")
    group.add_argument("--tokenizer", default=MODEL_TOKENIZER_PATH, help="folder or Hub id of the model's tokenizer")
    group.add_argument("--request-timeout", type=positive_seconds, default=1800.0, metavar="S", help="per completion")


def add_agent_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-turns", type=positive, default=6, metavar="N", help="replies per sample")
    group.add_argument(
        "-v", "--max-visual-tokens", type=positive, default=12000, metavar="N", help="budget of one tool call"
    )
    group.add_argument("--maxp", type=positive, default=720, metavar="P", help="lines to which the budget cuts first")
    group.add_argument(
        "--fallback",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="pass on four arguments and clamp windows; otherwise pass on all and clamp nothing",
    )
    group.add_argument(
        "--timestamps", choices=("requested", "actual"), default="requested", help="the times that label the frames"
    )


def add_frame_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--frame-tool", type=Path, default=HOME / FRAME_TOOL_PATH, help="the frame-selection command")
    group.add_argument(
        "--frame-root", type=Path, default=Path(FRAME_SAVE_ROOT), help="where frames go; the server must be allowed it"
    )
    group.add_argument("--backend", choices=("auto", "av", "decord"), default="auto", help="decoder of the frame tool")
    group.add_argument(
        "--image-transport", choices=("file", "base64"), default="file", help="send addresses, or the images themselves"
    )
    group.add_argument("--frame-workers", type=positive, default=os.cpu_count() or 1, metavar="N", help="calls at once")
    group.add_argument("--frame-timeout", type=positive_seconds, default=600.0, metavar="S", help="per call")


def add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-concurrent", type=positive, default=30, metavar="N", help="samples at once")
    group.add_argument("--new-cache", action="store_true", help="delete the cache first")
    group.add_argument("--retry-error", action="store_true", help="run the failed records again")
    group.add_argument("--yes", action="store_true", help="answer the confirmations of these two")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def positive_seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


def index_set(text: str) -> frozenset[int]:
    """`3,17,40-60` -> the indices."""
    indices: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part, re.ASCII)
        if match is None:
            raise argparse.ArgumentTypeError(f"{part!r} is neither an index nor a range such as 40-60")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > 1_000_000:
            raise argparse.ArgumentTypeError(f"the range {part!r} runs backwards or is too long")
        indices.update(range(first, last + 1))
    return frozenset(indices)


if __name__ == "__main__":
    sys.exit(main())
