"""One run, from top to bottom: annotation -> questions without a record -> samples -> cache -> result.

`evaluate` is what the command and the Python interface call. It prints nothing: lines for a person go to the logger
`eva`, and a `Host` asks, shows and ends the run where there is somebody to ask.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
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
from eva.protocol.stop_reasons import AGENT
from eva.records.cache import Cache, CacheError, open_cache
from eva.records.meta import Meta, write_meta
from eva.records.outcome import Outcome
from eva.records.schema import Record
from eva.run.connect import connect_all
from eva.run.executor import Executor, make_sample_runner, make_tool
from eva.run.meta import begin_meta, with_choice, with_coverage
from eva.run.options import Options
from eva.run.schedule import RunEndedError, RunInterruptedError, Schedule, by_video
from eva.run.settings import (
    Dataset,
    choose_agent,
    choose_items,
    find_doubts,
    find_problems,
    load_annotations,
    with_absolute_paths,
    with_agent_settings,
)
from eva.scoring.published import load_published
from eva.scoring.result_file import Coverage, measure
from eva.scoring.time_use import SampleTimes, sample_times, time_figures

log = logging.getLogger(__name__)

# So many faults of the agent, and no sample in between that it ended: every sample would end so.
MOST_FAULTS = 3


class CalledOffError(EvaError):
    """The user did not confirm. Nothing was changed."""


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

    def running(
        self, items: Sequence[Item], before: Sequence[Outcome], end_run: Callable[[int], None]
    ) -> AbstractContextManager[Callable[[Outcome], None]]:
        """Around the samples of `items`; `before` are the outcomes that there are. It gives what is told of each sample
        that ends. `end_run(number)` ends the run as the signal of this number should."""
        return nullcontext(lambda outcome: None)

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
    for problem in find_problems(dataset, options):
        raise problem
    agent = choose_agent(options, items)
    options = with_agent_settings(options, agent)
    for doubt in find_doubts(items, everything, dataset.jsonl, load_published().get(options.dataset)):
        log.warning("%s: %s", *doubt)
    async with AsyncExitStack() as at_end:
        cache = at_end.enter_context(open_cache(dataset.cache))
        outdated = find_outdated(cache, items, options)
        pending = [item for item in items if item.index in outdated or item.index not in cache.outcomes]
        models = await connect_all(options, needed=bool(pending))
        for model in models:
            at_end.push_async_callback(model.client.close)
        meta = await begin_meta(cache, models, dataset, agent=agent, options=options, pending=bool(pending))
        executor = None
        if pending:
            # The next steps may take seconds, so this is said before them.
            log.info(
                "%s: %d of %d done, %d to go; model %s at %s",
                options.dataset, len(items) - len(pending), len(items), len(pending), models[0].name,
                ", ".join(model.address for model in models),
            )  # fmt: skip
            executor = await make_executor(pending, models[0].name, dataset, agent=agent, options=options)
            at_end.push_async_callback(executor.close)
        else:
            model = meta.settings.get("model", "unknown")
            log.info("all %d done in %s (model %s)", len(items), cache.path, model)
        meta = with_choice(meta, everything, items)
        if options.new_cache:
            host.confirm(f"Delete the cache {cache.path} with its {len(outdated)} records?")
            cache.drop(outdated)
        elif outdated:
            host.confirm(f"Drop {len(outdated)} failed records from {cache.path} and run them again?")
            cache.drop(outdated)
        times = list[SampleTimes]()
        try:
            if executor:
                write_meta(cache.path, meta)
                who = agent.record_name
                await run_all(items, executor, models, cache=cache, agent=who, times=times, options=options, host=host)
        finally:
            ended = Ended(
                items=items,
                outcomes=outcomes_of(items, cache.outcomes),
                meta=meta,
                result=dataset.result,
                coverage=measure(dataset.result, meta.coverage, cache.outcomes, rows=None),
                frames=executor.counts if executor else FrameCounts(),
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


def find_outdated(cache: Cache, items: Sequence[Item], options: Options) -> frozenset[int]:
    """The indices of the records that --new-cache or --retry-error replaces."""
    if options.new_cache:
        return frozenset(cache.outcomes)
    chosen = {item.index for item in items} if options.retry_error else set()
    return frozenset(index for index, outcome in cache.outcomes.items() if index in chosen and not outcome.settled)


async def make_executor(
    items: Sequence[Item], model: str, dataset: Dataset, *, agent: AgentChoice, options: Options
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
        return Executor(make_sample_runner(agent.make(), transcribe, tool, dataset.video_root, options=options))
    from eva.cluster.driver import ClusterExecutor  # noqa: PLC0415  a local run needs no Ray
    from eva.cluster.node import NodeSettings  # noqa: PLC0415

    settings = NodeSettings(with_absolute_paths(options), model, str(dataset.video_root), agent.for_nodes())
    cluster = ClusterExecutor(settings, {item.videos[0] for item in items})
    await cluster.start(options.ray)
    return cluster


async def run_all(
    items: Sequence[Item],
    executor: Executor,
    models: Sequence[ChatModel],
    *,
    cache: Cache,
    agent: str,
    times: list[SampleTimes],
    options: Options,
    host: Host,
) -> None:
    """Run the items without a record. The record of each is on disk, with the name of the agent, before its sample
    counts as done."""
    servers = Servers(
        models,
        ceiling=options.max_concurrent,
        outage_timeout_s=options.outage_timeout,
        ranks=options.data_parallel_ranks,
    )
    faults = 0

    def keep(record: Record) -> None:
        nonlocal faults
        cache.append(replace(record, agent=agent))
        count(record.outcome)
        faults = faults + 1 if record.failure == AGENT else 0
        if faults == MOST_FAULTS:
            raise RunEndedError(
                f"{MOST_FAULTS} samples in a row ended by a fault of the agent ({record.error}): mend it, then run "
                "these again with --retry-error"
            )

    async def run(item: Item, avoiding: Collection[Server]) -> None:
        async with servers.assign(avoiding=avoiding) as assignment:
            record = await executor.run(item, assignment)
            times.append(sample_times(record))
            keep(record)

    def give_up(item: Item, failing: UnansweredError) -> None:
        log.warning("sample %s failed again, --retry-error runs it later: %s", item.index, failing)
        keep(failing.record or exception_record(item, failing.failure))

    schedule = Schedule(run, give_up, options.outage_timeout, executor.take)
    pending = by_video([item for item in items if item.index not in cache.outcomes])
    before = outcomes_of(items, cache.outcomes)
    try:
        with host.running(items, before, lambda number: schedule.end(number, options.grace)) as count, watched_loop():
            await schedule.run_all(pending, max_concurrent=options.max_concurrent)
    except (RunInterruptedError, RunEndedError):
        raise
    except EvaError as error:
        raise RunEndedError(str(error)) from error
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
