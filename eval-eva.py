#!/usr/bin/env python3
"""Evaluate EVA on a multiple-choice video dataset: items -> agent loop -> cache -> result -> summary.

Exit codes: 0 the run finished; 1 it was called off or failed on the way; 2 unusable arguments or settings, found
before any model call; 3 it finished, but samples ended by failures of the infrastructure and are to run again
(--retry-error); 130 and 143 interrupted (SIGINT, SIGTERM).
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from eva.agent.loop import Episode
from eva.agent.record import exception_record
from eva.agent.transcript import Transcribe, load_transcriber
from eva.cluster.node import Orders
from eva.dataset.items import Item, load_items
from eva.endpoint.client import ChatModel, connect, make_client
from eva.endpoint.errors import FailingError, ServerError
from eva.endpoint.pool import Server, Servers
from eva.errors import EvaError
from eva.files import WriteError, file_sha256, replace_text
from eva.frames.probing import is_folder
from eva.frames.tool import FrameCounts
from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.cache import Cache, CacheError, open_cache
from eva.records.meta import Meta, begin, read_meta, write_meta
from eva.records.outcome import Outcome
from eva.run.assembly import make_sampler, make_tool, store_cap
from eva.run.executor import Executor, LocalExecutor
from eva.run.options import Defaults, Options, parse_options
from eva.run.preflight import FAILED, OK, Finding, check_disk, check_items, check_server, check_videos, table
from eva.run.schedule import RunInterruptedError, Schedule, by_video
from eva.scoring.coverage import measure, read_spans, write_spans
from eva.scoring.score import Score
from eva.scoring.summary import choice_line, summary_json, summary_lines, truth_lines
from eva.terminal import run_command
from eva.text import printable, printable_lines

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
    "demo": {
        "jsonl": "demo/data/demo.jsonl",
        "video_root": "demo/data/videos",
        "cache": "cache_demo.jsonl",
        "result": "result_demo.jsonl",
    },
}

# The exit code of a run some samples of which are to run again.
UNFINISHED = 3

HOME = Path(__file__).resolve().parent
DEFAULTS = Defaults(
    base_url=BASE_URL,
    api_key=API_KEY,
    tokenizer=MODEL_TOKENIZER_PATH,
    frame_tool=HOME / FRAME_TOOL_PATH,
    frame_root=Path(FRAME_SAVE_ROOT),
    datasets=tuple(DATASET_CONFIG),
)


class SettingsError(EvaError):
    """Settings with which no run can start."""


class CalledOffError(EvaError):
    """The user did not confirm; nothing was changed."""


class RunEndedError(EvaError):
    """A run that cannot go on; what finished is in the cache."""


@dataclass(frozen=True)
class Dataset:
    """Where a dataset's questions and videos are, and where its cache and result go."""

    jsonl: Path
    video_root: Path
    cache: Path
    result: Path


def main() -> int:
    # Only the tokenizer is wanted of transformers, which says at its import that torch is not there.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    options = parse_options(sys.argv[1:], DEFAULTS)
    try:
        return asyncio.run(check(options) if options.check else evaluate(options))
    except EvaError as error:
        return fail(error)
    except KeyboardInterrupt:
        print("eval-eva.py: interrupted before anything ran", file=sys.stderr)
        return 130


def fail(error: EvaError) -> int:
    """Say what happened, and how to go on where samples have run; gives the exit code."""
    message, code = printable_lines(str(error)), 2
    if isinstance(error, (RunInterruptedError, RunEndedError)):
        message += f"; to go on:  {resume_command(sys.argv)}"
        code = 128 + error.number if isinstance(error, RunInterruptedError) else 1
        # All is saved, and the process ends: one more signal would only spoil its exit code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif isinstance(error, CalledOffError):
        code = 1
    print(f"eval-eva.py: {message}", file=sys.stderr)
    return code


async def evaluate(options: Options) -> int:
    """The whole run, in order.

    Raises RunEndedError or RunInterruptedError once samples may have run; what finished is then in cache and result.
    Any other EvaError comes before, and nothing has changed.
    """
    started = monotonic()
    dataset = choose_dataset(options)
    everything = load_annotations(dataset.jsonl, options.dataset)
    items = choose_items(everything, options)
    check_settings(dataset, options)
    transcribe = load_transcriber(options.tokenizer)
    with open_cache(dataset.cache, warn) as cache:
        forgotten = outdated(cache, items, options)
        pending = [item for item in items if item.index in forgotten or item.index not in cache.outcomes]
        models = await connect_all(options) if pending else []
        meta = with_choice(begin_meta(cache, models, dataset, options), everything, items)
        executor = await make_executor(pending, models, transcribe, dataset, options)
        forget(cache, forgotten, options)
        try:
            if models:
                write_meta(cache.path, meta)
                await run_all(pending, executor, models, cache, options)
        finally:
            try:
                finish(everything, cache, dataset, meta)
            finally:
                if not cache.lost:
                    wall_s = monotonic() - started
                    print_summary(items, cache, dataset, meta, wall_s, frames=executor.usage, json_file=options.json)
        return say_failures(items, cache)


async def check(options: Options) -> int:
    """Everything that can be found out before hours are spent, as a table; 0 if a run can start."""
    dataset = choose_dataset(options)
    items = choose_items(load_annotations(dataset.jsonl, options.dataset), options)
    check_settings(dataset, options)
    load_transcriber(options.tokenizer)
    findings = [*check_items(items), Finding("tokenizer", OK, "its chat template renders the agent's messages")]
    with tqdm(unit="video") as progress:

        def show(done: int, total: int) -> None:
            progress.total, progress.n = total, done
            progress.refresh()

        memory = options.frame_root / "checked_videos.json"
        tool = make_tool(replace(options, fallback=True), own_tool=HOME / FRAME_TOOL_PATH)
        try:
            await tool.start(warn)
            findings.append(await check_videos(items, dataset.video_root, tool, memory, show))
        finally:
            await tool.close()
    findings.append(check_disk(options.frame_root, len(items), options.max_visual_tokens, store_cap(tool)))
    for url in options.base_url:
        try:
            model = await connect_to(url, options)
            findings += await check_server(
                model,
                max_turns=options.max_turns,
                max_visual_tokens=options.max_visual_tokens,
                frame_root=options.frame_root,
            )
        except ServerError as error:
            findings.append(Finding(f"server {without_secrets(url)}", FAILED, str(error)))
    print(printable_lines("\n".join(table(findings))))
    return int(any(finding.verdict == FAILED for finding in findings))


def choose_dataset(options: Options) -> Dataset:
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
        video_root=absolute(options.video_root or HOME / config["video_root"]),
        cache=options.output_dir / config.get("cache", f"cache_{name}.jsonl"),
        result=options.output_dir / config.get("result", f"result_{name}.jsonl"),
    )


def load_annotations(jsonl: Path, name: str) -> list[Item]:
    if not jsonl.exists() and name in DATASET_CONFIG:
        command = "python -m demo.make_data" if name == "demo" else f"python data/fetch.py {name}"
        raise SettingsError(f"there is no annotation file {jsonl}: run  {command}")
    return load_items(jsonl)


def choose_items(items: Sequence[Item], options: Options) -> list[Item]:
    """The items of --ids, of these the first --sample; all without either."""
    if options.ids is not None:
        unknown = sorted(options.ids - {item.index for item in items})
        if unknown:
            raise SettingsError(f"--ids: there is no item {', '.join(map(str, unknown[:10]))} in the annotation file")
        items = [item for item in items if item.index in options.ids]
    return list(items[: options.sample])


def absolute(path: Path) -> Path:
    """`path` as it is to be found from any folder; `$SCRATCH/videos` is for each node of a cluster to find."""
    return path if str(path).startswith("$") else path.absolute()


def absolute_paths(options: Options) -> Options:
    tokenizer = Path(options.tokenizer)
    return replace(
        options,
        frame_tool=options.frame_tool.absolute(),
        frame_root=absolute(options.frame_root),
        tokenizer=str(tokenizer.absolute()) if tokenizer.is_dir() else options.tokenizer,
    )


def check_settings(dataset: Dataset, options: Options) -> None:
    if (options.new_cache or options.retry_error) and not options.yes and not sys.stdin.isatty():
        raise SettingsError("--new-cache and --retry-error ask first, and there is no terminal to ask on: add --yes")
    check_place(dataset, options)
    if not options.frame_tool.is_file():
        raise SettingsError(f"there is no frame tool {options.frame_tool}: give it with --frame-tool")
    if options.backend == "decord" and importlib.util.find_spec("decord") is None:
        raise SettingsError("--backend decord: the package decord is not installed (pip install decord)")
    check_writable("--output-dir", options.output_dir)


def check_place(dataset: Dataset, options: Options) -> None:
    """The folders and the package that the place needs where the samples run; the nodes of a cluster check theirs."""
    if options.ray is not None:
        if importlib.util.find_spec("ray") is None:
            raise SettingsError("--ray needs the package ray: pip install -r requirements/ray.txt")
        if options.check:
            raise SettingsError("--check looks at one machine: leave --ray out, and run it on every node")
        return
    if not is_folder(dataset.video_root):
        raise SettingsError(f"there is no video folder {dataset.video_root}: give it with --video-root")
    check_writable("--frame-root", options.frame_root)


def check_writable(flag: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"{flag} {folder} cannot be written to: {error.strerror}") from error


def outdated(cache: Cache, items: Sequence[Item], options: Options) -> frozenset[int]:
    """The recorded indices that --new-cache or --retry-error runs again."""
    if options.new_cache:
        return frozenset(cache.outcomes)
    chosen = {item.index for item in items} if options.retry_error else set()
    return frozenset(index for index, outcome in cache.outcomes.items() if index in chosen and not outcome.settled)


def forget(cache: Cache, indices: Collection[int], options: Options) -> None:
    """Take the outdated records out of the cache, after asking."""
    if options.new_cache:
        confirm(f"Delete the cache {cache.path} with its {len(indices)} records?", options)
        cache.clear()
    elif options.retry_error:
        confirm(f"Drop {len(indices)} failed records from {cache.path} and run them again?", options)
        cache.drop(indices)


def confirm(question: str, options: Options) -> None:
    if options.yes:
        return
    print(f"{question} (y/N) ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CalledOffError("called off; nothing was changed")


async def connect_all(options: Options) -> list[ChatModel]:
    """One model on every server; they must agree on its name. A server that does not answer yet may come later, as
    long as another one does."""
    models: list[ChatModel] = []
    silent: dict[str, ServerError] = {}
    for url in options.base_url:
        try:
            models.append(await connect_to(url, options))
        except ServerError as error:
            silent[url] = error
    if not models:
        raise next(iter(silent.values()))
    for url, silence in silent.items():
        warn(f"going on without it for now: {silence}")
        models.append(ChatModel(make_client(url, options.api_key, options.request_timeout), models[0].name))
    names = {model.name for model in models}
    if len(names) > 1:
        raise SettingsError(f"the servers serve different models, {', '.join(sorted(names))}: choose one with --model")
    return models


async def connect_to(url: str, options: Options) -> ChatModel:
    return await connect(base_url=url, api_key=options.api_key, model=options.model, timeout_s=options.request_timeout)


def begin_meta(cache: Cache, models: Sequence[ChatModel], dataset: Dataset, options: Options) -> Meta | None:
    """Note what the records are made with; None where nothing is to run."""
    if not models:
        return read_meta(cache.path)
    settings = {
        "dataset": options.dataset,
        "annotations_sha256": file_sha256(dataset.jsonl),
        "model": models[0].name,
        "max_turns": options.max_turns,
        "max_visual_tokens": options.max_visual_tokens,
        "maxp": options.maxp,
        "fallback": options.fallback,
        "timestamps": options.timestamps,
        "backend": options.backend,
        "frame_tool": options.frame_tool.name,
    }
    kept = bool(cache.outcomes) and not options.new_cache
    return begin(cache.path, settings, has_records=kept, force=options.force, home=HOME)


def with_choice(meta: Meta | None, everything: Sequence[Item], items: Sequence[Item]) -> Meta:
    """Note how many questions there are and which are to be asked; what an earlier run was to ask stays to be asked."""
    meta = meta or Meta.unknown()
    before = read_spans(meta.coverage.get("chosen")) or frozenset()
    chosen = (before | {item.index for item in items}) & {item.index for item in everything}
    return replace(meta, coverage={"items": len(everything), "chosen": write_spans(chosen)})


async def make_executor(
    items: Sequence[Item], models: Sequence[ChatModel], transcribe: Transcribe, dataset: Dataset, options: Options
) -> Executor:
    """What plays the samples: this process, or the nodes of a Ray cluster."""
    own_tool = HOME / FRAME_TOOL_PATH
    if options.ray is None or not models:
        tool = make_tool(options, own_tool=own_tool)
        if models:
            await tool.start(warn)
        return LocalExecutor(make_sampler(transcribe, tool, dataset.video_root, options, warn))
    from eva.cluster.driver import join_cluster  # noqa: PLC0415  a local run needs no Ray

    orders = Orders(absolute_paths(options), models[0].name, str(dataset.video_root), own_tool)
    return await join_cluster(options.ray, orders, {item.videos[0] for item in items}, warn)


async def run_all(
    items: Sequence[Item], executor: Executor, models: Sequence[ChatModel], cache: Cache, options: Options
) -> None:
    """Run the items to their records; each is on disk before its sample counts as done."""
    # A log file gets a line now and then, a terminal a bar that moves.
    with tqdm(total=len(items), unit="sample", mininterval=0.5 if sys.stderr.isatty() else 30) as progress:
        servers = Servers(
            models,
            ceiling=options.max_concurrent,
            outage_timeout_s=options.outage_timeout,
            notify=lambda text: progress.set_postfix_str(printable(text)),
        )

        async def run(item: Item, avoiding: Collection[Server]) -> None:
            async with servers.seat(avoiding=avoiding) as seat:
                cache.append(await executor.run(item, seat))
            progress.update()

        def give_up(item: Item, failing: FailingError) -> None:
            warn(f"sample {item.index} keeps failing while others do not: {failing}")
            cache.append(failing.record or exception_record(item, failing.failure, Episode()))
            progress.update()

        schedule = Schedule(run, servers.serves_others, give_up, options.outage_timeout, executor.take)
        try:
            await schedule.run_all(by_video(items), max_concurrent=options.max_concurrent, grace_s=options.grace)
        except RunInterruptedError:
            raise
        except EvaError as error:
            raise RunEndedError(str(error)) from error
        finally:
            await servers.close()
            await executor.close()


def finish(everything: Sequence[Item], cache: Cache, dataset: Dataset, meta: Meta) -> None:
    """Merge what there is into the result, and say beside it what it was made with and covers."""
    try:
        cache.merge(dataset.result)
        write_meta(dataset.result, replace(meta, coverage={**meta.coverage, **coverage(everything, cache)}))
    except (CacheError, WriteError) as error:
        raise RunEndedError(str(error)) from error


def coverage(everything: Sequence[Item], cache: Cache) -> dict[str, Any]:
    """How much of the annotation file the result stands for: a partial run's result must not pass for a whole one."""
    outcomes = [cache.outcomes[item.index] for item in everything if item.index in cache.outcomes]
    figures = Score(outcomes, len(everything) - len(outcomes))
    return {
        "items": figures.total,
        "recorded": figures.recorded,
        "pending": figures.pending,
        "complete": not figures.pending,
    }


def print_summary(
    items: Sequence[Item],
    cache: Cache,
    dataset: Dataset,
    meta: Meta,
    wall_s: float,
    *,
    frames: FrameCounts,
    json_file: Path | None,
) -> None:
    """The reference's summary, then what it leaves out; of an unfinished run, what can be said so far."""
    outcomes = outcomes_of(items, cache)
    figures = Score(outcomes, len(items) - len(outcomes))
    counts = {"frames_asked": frames.asked, "frames_decoded": frames.decoded}
    # First what is kept, then what is said.
    if json_file is not None:
        figures_json = summary_json(figures, wall_s, **counts)
        try:
            replace_text(json_file, json.dumps(figures_json, indent=1) + "\n")
        except WriteError as error:
            raise RunEndedError(str(error)) from error
    print("\n".join([*summary_lines(figures), *truth_lines(figures, wall_s, **counts)]))
    covered = measure(dataset.result, meta.coverage, cache.outcomes, rows=None)
    print(f"Result: {dataset.result}" + (" (of a partial run)" if covered.partial else ""))
    if covered.of_a_choice:
        print(choice_line(covered))


def outcomes_of(items: Sequence[Item], cache: Cache) -> list[Outcome]:
    """Those of the items that have one, against the truths of this annotation file."""
    pairs = [(item, cache.outcomes[item.index]) for item in items if item.index in cache.outcomes]
    return [replace(one, ground_truth=item.ground_truth, video=item.videos[0]) for item, one in pairs]


def say_failures(items: Sequence[Item], cache: Cache) -> int:
    """The exit code of a run that finished; says how to go on where failures say nothing of the agent."""
    failed = sum(outcome.failure == INFRASTRUCTURE for outcome in outcomes_of(items, cache))
    if not failed:
        return 0
    warn(
        f"{failed} of {len(items)} samples ended by failures of the infrastructure and count as wrong; "
        f"to run them again:  {resume_command(sys.argv)} --retry-error"
    )
    return UNFINISHED


def resume_command(argv: Sequence[str]) -> str:
    """The same command, less what would throw away the records that there are, and less what is secret, for it goes
    into logs."""
    words = [word for word in argv if word not in ("--new-cache", "--retry-error")]
    for place, word in enumerate(words):
        name, joined, value = word.partition("=")
        if joined and name in SECRET_FLAGS:
            words[place] = f"{name}={SECRET_FLAGS[name](value)}"
        elif place and words[place - 1] in SECRET_FLAGS:
            words[place] = SECRET_FLAGS[words[place - 1]](word)
    return shlex.join(["python", *words])


def without_secrets(urls: str) -> str:
    """Addresses with placeholders for the values of their queries, and for their user and password."""
    urls = re.sub(r"([?&][^=&,]*=)[^&,]*", r"\1YOUR_KEY", urls)
    return re.sub(r"//[^/,]*@", "//YOUR_USER:YOUR_PASSWORD@", urls)


SECRET_FLAGS: Mapping[str, Callable[[str], str]] = {"--api-key": lambda _: "YOUR_KEY", "--base-url": without_secrets}


def warn(message: str) -> None:
    tqdm.write(f"eval-eva.py: {printable(message, limit=2000)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
