"""One run, from top to bottom: annotation -> questions without a record -> samples -> cache -> result.

`evaluate` is what the command and the Python interface call. It prints nothing: lines for a person go to the logger
`eva`, and a `Host` asks, shows and ends the run where there is somebody to ask.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from eva.agent.record import exception_record
from eva.agent.transcript import load_transcriber
from eva.agent.watch import watched_loop
from eva.agents.choice import AgentChoice
from eva.dataset.items import Item
from eva.endpoint.client import ChatModel
from eva.endpoint.errors import UnansweredError
from eva.endpoint.pool import Server, Servers
from eva.errors import EvaError
from eva.files import WriteError
from eva.frames.tool import FrameCounts
from eva.records.cache import Cache, CacheError, open_cache
from eva.records.meta import Meta, write_meta
from eva.records.outcome import Outcome
from eva.records.schema import Record
from eva.run.connect import connect_all
from eva.run.executor import Executor, LocalExecutor, make_sample_runner, make_tool
from eva.run.keeper import Keeper, drop_outdated, end_of_run, find_outdated
from eva.run.meta import begin_meta, finished_meta, with_choice, with_coverage
from eva.run.options import Options
from eva.run.progress import Progress, first_line
from eva.run.schedule import RunEndedError, RunInterruptedError, Schedule, by_video
from eva.run.settings import (
    Dataset,
    check_settings,
    choose_agent,
    choose_items,
    find_doubts,
    load_annotations,
    with_absolute_paths,
    with_agent_settings,
)
from eva.scoring.coverage import Coverage, measure
from eva.scoring.published import load_published
from eva.scoring.time_use import SampleTimes, sample_times, time_figures

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """A run at its end, finished or not. `outcomes` are those of its `items` that have a record; `coverage` is that of
    the whole result, in which earlier runs may have put more."""

    items: Sequence[Item]
    outcomes: Sequence[Outcome]
    meta: Meta
    result: Path
    coverage: Coverage
    frames: FrameCounts
    times: dict[str, Any]
    wall_s: float


class Host:
    """The program around a run. This one is silent and agrees to everything; that of the command asks and shows."""

    def confirm(self, question: str) -> None:
        """Ask whether records may be dropped. Raises CalledOffError if not."""

    def progress(self, name: str, items: Sequence[Item], cache: Cache) -> Progress:
        """What is told of each sample that ends."""
        return Progress()

    def catch_signals(self, end_run: Callable[[int], None]) -> None:
        """Called when the samples begin. `end_run(number)` ends the run as the signal of this number should: the first
        one gives the running samples time, the second one none."""

    def end(self, ended: Ended) -> None:
        """Called when the result is written, also where the run does not finish."""


async def evaluate(dataset: Dataset, options: Options, host: Host) -> Ended:
    """Run the chosen questions that have no record, and write the result.

    Raises RunEndedError or RunInterruptedError if samples may have run; cache and result then hold what finished, as
    they do where this coroutine is cancelled. Every other EvaError comes before the first sample: nothing has changed.
    """
    started_at = monotonic()
    everything = load_annotations(dataset.jsonl, options.dataset)
    items = choose_items(everything, options)
    check_settings(dataset, options)
    agent = choose_agent(options, items)
    options = with_agent_settings(options, agent)
    for doubt in find_doubts(items, everything, dataset.jsonl, load_published().get(options.dataset)):
        log.warning("%s: %s", *doubt)
    async with AsyncExitStack() as at_end:
        cache = at_end.enter_context(open_cache(dataset.cache))
        outdated = find_outdated(cache, items, options)
        pending = [item for item in items if item.index in outdated or item.index not in cache.outcomes]
        models = await connect_all(options) if pending else []
        for model in models:
            at_end.push_async_callback(model.client.close)
        if models:
            meta = await begin_meta(cache, models, dataset, agent=agent, options=options)
            # The next steps may take seconds, so this is said before them.
            addresses = [model.address for model in models]
            log.info("%s", first_line(options.dataset, items, pending, models[0].name, addresses))
            executor = await make_executor(pending, models, dataset, agent=agent, options=options)
            at_end.push_async_callback(executor.close)
        else:
            meta = await finished_meta(cache.path, len(items), dataset, agent=agent, options=options)
        meta = with_choice(meta, everything, items)
        times = list[SampleTimes]()
        drop_outdated(cache, outdated, options, host.confirm)
        try:
            if models:
                write_meta(cache.path, meta)
                await run_all(
                    items,
                    executor,
                    models,
                    keeper=Keeper(cache, agent.record_name),
                    times=times,
                    options=options,
                    host=host,
                )
        finally:
            ended = Ended(
                items=items,
                outcomes=outcomes_of(items, cache.outcomes),
                meta=meta,
                result=dataset.result,
                coverage=measure(dataset.result, meta.coverage, cache.outcomes, rows=None),
                frames=executor.counts if models else FrameCounts(),
                times=time_figures(times),
                wall_s=monotonic() - started_at,
            )
            try:
                write_result(everything, cache, dataset.result, meta)
            finally:
                if not cache.lost:
                    host.end(ended)
        return ended


# --- the stages of a run, in their order


async def make_executor(
    items: Sequence[Item], models: Sequence[ChatModel], dataset: Dataset, *, agent: AgentChoice, options: Options
) -> Executor:
    """What runs the samples: this process, or the nodes of a Ray cluster."""
    transcribe = load_transcriber(options.tokenizer)
    if options.ray is None:
        tool = make_tool(options, dataset.video_root)
        try:
            await tool.start()
        except BaseException:
            await tool.close()
            raise
        return LocalExecutor(make_sample_runner(agent.make(), transcribe, tool, dataset.video_root, options=options))
    from eva.cluster.driver import join_cluster  # noqa: PLC0415  a local run needs no Ray
    from eva.cluster.node import NodeSettings  # noqa: PLC0415

    root = str(dataset.video_root)
    settings = NodeSettings(with_absolute_paths(options), models[0].name, root, agent.for_nodes())
    return await join_cluster(options.ray, settings, {item.videos[0] for item in items})


async def run_all(
    items: Sequence[Item],
    executor: Executor,
    models: Sequence[ChatModel],
    *,
    keeper: Keeper,
    times: list[SampleTimes],
    options: Options,
    host: Host,
) -> None:
    """Run the items without a record. The record of each is on disk before its sample counts as done."""
    pending = [item for item in items if item.index not in keeper.cache.outcomes]
    async with host.progress(options.dataset, items, keeper.cache) as progress:
        servers = Servers(
            models,
            ceiling=options.max_concurrent,
            outage_timeout_s=options.outage_timeout,
            ranks=options.data_parallel_ranks,
            notify=progress.note_outage,
        )

        def keep(record: Record) -> None:
            keeper.append(record)
            progress.count(record.outcome)

        async def run(item: Item, avoiding: Collection[Server]) -> None:
            async with servers.assign(avoiding=avoiding) as assignment:
                record = await executor.run(item, assignment)
                times.append(sample_times(record))
                keep(record)
                assignment.server.unproved.append(item.index)

        def give_up(item: Item, failing: UnansweredError) -> None:
            log.warning("sample %s failed again, --retry-error runs it later: %s", item.index, failing)
            keep(failing.record or exception_record(item, failing.failure))

        schedule = Schedule(run, give_up, options.outage_timeout, executor.take)
        try:
            with watched_loop():
                host.catch_signals(lambda number: schedule.end(number, options.grace))
                await schedule.run_all(by_video(pending), max_concurrent=options.max_concurrent)
            await servers.check_weights()
        except RunInterruptedError:
            raise
        except EvaError as error:
            raise end_of_run(error, keeper.cache, servers.unproved) from error
        finally:
            await servers.close()


def write_result(everything: Sequence[Item], cache: Cache, result: Path, meta: Meta) -> None:
    """Merge the cache into the result, and write its meta file. Raises RunEndedError."""
    try:
        cache.merge(result)
        write_meta(result, with_coverage(meta, everything, cache))
        if meta.settings:
            write_meta(cache.path, meta)
    except (CacheError, WriteError) as error:
        raise RunEndedError(str(error)) from error


def outcomes_of(items: Sequence[Item], outcomes: Mapping[int, Outcome]) -> list[Outcome]:
    """The outcomes of those items that have one, with the ground truths of this annotation file."""
    pairs = [(item, outcomes[item.index]) for item in items if item.index in outcomes]
    return [replace(one, ground_truth=item.ground_truth, video=item.videos[0]) for item, one in pairs]
