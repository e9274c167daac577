#!/usr/bin/env python3
"""Evaluate EVA on a multiple-choice video dataset: items -> agent loop -> cache -> result -> summary.

Exit codes: 0 the run finished; 1 the user called it off, it failed on the way, or --check or --replay found a fault;
2 unusable arguments or settings, found before any model call; 3 it finished, but the infrastructure failed for some
samples, and these must run again (--retry-error); 130 and 143 interrupted (SIGINT, SIGTERM).
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from tqdm import tqdm

from eva.agent.loop import Episode
from eva.agent.record import exception_record
from eva.agent.transcript import Transcribe, load_transcriber
from eva.agents.choice import AgentChoice
from eva.dataset.items import Item, load_items
from eva.endpoint.errors import FailingError
from eva.endpoint.metrics import Watch
from eva.endpoint.pool import Server, Servers
from eva.errors import EvaError
from eva.files import WriteError
from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.cache import Cache, CacheError, open_cache
from eva.records.meta import Meta, write_meta
from eva.records.schema import Record
from eva.run.choices import choose_agent, choose_items
from eva.run.connect import connect_all
from eva.run.executor import Executor, LocalExecutor, make_sample_runner, make_tool
from eva.run.final_summary import outcomes_of, result_lines, summarize
from eva.run.keeper import CalledOffError, Keeper, drop_outdated, end_of_run, find_outdated
from eva.run.meta_content import (
    begin_meta,
    finished_meta,
    with_choice,
    with_coverage,
    with_servers,
    with_time_use,
    with_videos,
)
from eva.run.options import FRAME_ROOT, Defaults, Options, parse_options
from eva.run.preflight import FAILED, find_doubts, table
from eva.run.progress import Progress, first_line
from eva.run.rehearsal import check_all
from eva.run.resume_command import resume_command
from eva.run.schedule import RunEndedError, RunInterruptedError, Schedule, by_video
from eva.run.settings import Dataset, SettingsError, check_settings, choose_dataset, split_repeats, with_absolute_paths
from eva.run.time_use import TimedExecutor
from eva.scoring.published import load_published
from eva.terminal import run_command
from eva.text import folded, printable, printable_lines

if TYPE_CHECKING:
    from eva.endpoint.client import ChatModel

# The settings of a run. There is a flag for each of them, and a flag wins.
BASE_URL = "http://127.0.0.1:8000/v1"
API_KEY = "EMPTY"
MODEL_TOKENIZER_PATH = "models/EVA"
FRAME_TOOL_PATH = "select_frame_fallback.py"
FRAME_SAVE_ROOT = FRAME_ROOT  # the server must be allowed to read this folder

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

# The exit code of a finished run, if some of its samples must run again.
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


def main() -> int:
    # Of transformers only the tokenizer is used, and without torch it prints advice at its import.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    options = parse_options(sys.argv[1:], DEFAULTS)
    try:
        if options.replay is not None:
            return asyncio.run(replay(options.replay, options))
        return asyncio.run(check(options) if options.check else evaluate(options))
    except EvaError as error:
        return fail(error)
    except KeyboardInterrupt:
        print("eval-eva.py: interrupted while no sample ran", file=sys.stderr)
        return 130


def fail(error: EvaError) -> int:
    """Print what happened, and the command to go on if samples have run; gives the exit code."""
    message, code = printable_lines(str(error)), 2
    if isinstance(error, (RunInterruptedError, RunEndedError)):
        message += f"; to go on:  {resume_command(sys.argv)}"
        code = 128 + error.number if isinstance(error, RunInterruptedError) else 1
        # All is saved, and the process ends: one more signal would only change its exit code.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif isinstance(error, CalledOffError):
        code = 1
    print(f"eval-eva.py: {message}", file=sys.stderr)
    return code


async def evaluate(options: Options) -> int:
    """The run, or each run of --repeat; gives the exit code. Raises as evaluate_once."""
    repeats = split_repeats(choose_dataset(options, DATASET_CONFIG, HOME), options)
    codes = []
    for number, (dataset, flags) in enumerate(repeats, 1):
        if options.repeat:
            warn(f"run {number} of {options.repeat}: {dataset.result}")
        codes.append(await evaluate_once(dataset, flags))
    if len(repeats) > 1:
        results = " ".join(shlex.quote(str(dataset.result)) for dataset, _ in repeats)
        print(f"All repeats:  python accuracy.py --repeats {results}")
    return max(codes)


async def evaluate_once(dataset: Dataset, options: Options) -> int:
    """One run, in order; gives the exit code.

    Raises RunEndedError or RunInterruptedError if samples may have run; cache and result then hold what finished.
    Every other EvaError comes before the first sample, and nothing has changed.
    """
    started_at = monotonic()
    everything = load_annotations(dataset.jsonl, options.dataset)
    items = choose_items(everything, options)
    check_settings(dataset, options)
    agent = choose_agent(options, items)
    transcribe = load_transcriber(options.tokenizer)
    for doubt in find_doubts(items, everything, dataset.jsonl, load_published(HOME).get(options.dataset)):
        warn(f"{doubt.what}: {doubt.detail}")
    with open_cache(dataset.cache, warn) as cache:
        outdated = find_outdated(cache, items, options)
        pending = [item for item in items if item.index in outdated or item.index not in cache.outcomes]
        models = await connect_all(options, warn) if pending else []
        if models:
            meta = begin_meta(cache, models, dataset, agent=agent, options=options, home=HOME, report=warn)
            meta = await with_servers(meta, models)
        else:
            meta = await finished_meta(cache.path, len(items), dataset, agent=agent, options=options, report=warn)
        meta = with_choice(meta, everything, items)
        nodes = await make_executor(pending, models, transcribe, dataset, agent=agent, options=options)
        executor = TimedExecutor(nodes, Watch(models))
        drop_outdated(cache, outdated, options)
        try:
            if models:
                write_meta(cache.path, meta)
                await run_all(items, executor, models, Keeper(cache, agent, warn), options)
        finally:
            meta = with_time_use(meta, executor)
            if options.ray is None:
                meta = with_videos(meta, dataset.video_root)
            try:
                write_result(everything, cache, dataset.result, meta)
            finally:
                if not cache.lost:
                    wall_s = monotonic() - started_at
                    print_summary(items, cache, executor, meta, wall_s=wall_s, json_file=options.json)
                    print("\n".join(result_lines(dataset.result, meta, cache)))
        return exit_code(items, cache)


async def check(options: Options) -> int:
    """Print a table of all that can be found out before a run of hours; 0 if a run can start."""
    dataset = choose_dataset(options, DATASET_CONFIG, HOME)

    load = partial(load_annotations, dataset.jsonl, options.dataset)
    published = load_published(HOME).get(options.dataset)
    findings = await check_all(
        load, dataset, options, published=published, own_tool=HOME / FRAME_TOOL_PATH, report=warn
    )
    print("\n".join(table(findings, columns=shutil.get_terminal_size().columns)))
    return int(any(finding.verdict == FAILED for finding in findings))


async def replay(result: Path, options: Options) -> int:
    """Play the replies of a result file again, without a server; 0 if its records are what the loop makes of them."""
    from eva.replay.command import replay_result  # noqa: PLC0415  a run does not need it

    dataset = choose_dataset(options, DATASET_CONFIG, HOME)
    items = choose_items(load_annotations(dataset.jsonl, options.dataset), options)
    summary = await replay_result(result, items, dataset, options, own_tool=HOME / FRAME_TOOL_PATH, report=warn)
    print("\n".join(summary.lines()))
    return int(not summary.proved)


# --- the stages of a run, in their order


def load_annotations(jsonl: Path, name: str) -> list[Item]:
    if not jsonl.exists() and name in DATASET_CONFIG:
        command = "python -m demo.make_data" if name == "demo" else f"python data/fetch.py {name}"
        raise SettingsError(f"there is no annotation file {jsonl}: run  {command}")
    return load_items(jsonl)


async def make_executor(
    items: Sequence[Item],
    models: Sequence[ChatModel],
    transcribe: Transcribe,
    dataset: Dataset,
    *,
    agent: AgentChoice,
    options: Options,
) -> Executor:
    """What runs the samples: this process, or the nodes of a Ray cluster."""
    own_tool = HOME / FRAME_TOOL_PATH
    if options.ray is None or not models:
        tool = make_tool(options, video_root=dataset.video_root, own_tool=own_tool)
        if models:
            await tool.start(warn)
        runner = make_sample_runner(agent.make(), transcribe, tool, dataset.video_root, options=options, report=warn)
        return LocalExecutor(runner)
    from eva.cluster.driver import join_cluster  # noqa: PLC0415  a local run needs no Ray
    from eva.cluster.node import NodeSettings  # noqa: PLC0415

    settings = NodeSettings(with_absolute_paths(options), models[0].name, str(dataset.video_root), own_tool, agent)
    return await join_cluster(options.ray, settings, {item.videos[0] for item in items}, warn)


async def run_all(
    items: Sequence[Item], executor: TimedExecutor, models: Sequence[ChatModel], keeper: Keeper, options: Options
) -> None:
    """Run the items without a record. The record of each is on disk before its sample counts as done."""
    pending = [item for item in items if item.index not in keeper.cache.outcomes]
    warn(first_line(options.dataset, items, pending, models[0].name, [model.address for model in models]))
    async with Progress(options.dataset, items, keeper.cache, warn) as progress:
        servers = Servers(
            models,
            ceiling=options.max_concurrent,
            outage_timeout_s=options.outage_timeout,
            ranks=options.data_parallel_ranks,
            notify=progress.note_outage,
            report=warn,
        )

        def keep(record: Record) -> None:
            keeper.append(record)
            progress.count(record.outcome)

        async def run(item: Item, avoiding: Collection[Server]) -> None:
            async with servers.assign(avoiding=avoiding) as assignment:
                keep(await executor.run(item, assignment))
                assignment.server.unproved.append(item.index)

        def give_up(item: Item, failing: FailingError) -> None:
            warn(f"sample {item.index} keeps failing while others do not: {failing}")
            keep(failing.record or exception_record(item, failing.failure, Episode()))

        schedule = Schedule(run, servers.serves_others, give_up, options.outage_timeout, executor.take, warn)
        try:
            async with executor.servers:
                await schedule.run_all(by_video(pending), max_concurrent=options.max_concurrent, grace_s=options.grace)
            await servers.check_weights()
        except RunInterruptedError:
            raise
        except EvaError as error:
            raise end_of_run(error, keeper.cache, servers.unproved) from error
        finally:
            await servers.close()
            await executor.close()


def write_result(everything: Sequence[Item], cache: Cache, result: Path, meta: Meta) -> None:
    """Merge the cache into the result, and write its meta file."""
    try:
        cache.merge(result)
        write_meta(result, with_coverage(meta, everything, cache))
        if meta.settings:
            write_meta(cache.path, meta)
    except (CacheError, WriteError) as error:
        raise RunEndedError(str(error)) from error


def print_summary(
    items: Sequence[Item], cache: Cache, executor: TimedExecutor, meta: Meta, *, wall_s: float, json_file: Path | None
) -> None:
    published = load_published(HOME)
    try:
        lines = summarize(items, cache, executor, meta, published=published, wall_s=wall_s, json_file=json_file)
    except WriteError as error:
        raise RunEndedError(str(error)) from error
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        lines = [part for line in lines for part in folded(line, columns, "  ")]
    print("\n".join(lines))


def exit_code(items: Sequence[Item], cache: Cache) -> int:
    """The exit code of a run that finished. Prints how to go on if the infrastructure failed for some samples."""
    failed = sum(outcome.failure == INFRASTRUCTURE for outcome in outcomes_of(items, cache))
    if not failed:
        return 0
    warn(
        f"{failed} of {len(items)} samples ended by failures of the infrastructure and count as wrong; "
        f"to run them again:  {resume_command(sys.argv)} --retry-error"
    )
    return UNFINISHED


def warn(message: str) -> None:
    tqdm.write(f"eval-eva.py: {printable(message, limit=2000)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
