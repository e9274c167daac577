"""What a vLLM server says of itself on /metrics: its data-parallel ranks, their load, and the hits of their caches."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from eva.json_text import number

if TYPE_CHECKING:
    from eva.endpoint.client import ChatModel

INTERVAL_S = 2.0
# For the looks before the first sample and after the last one, which somebody waits for.
EDGE_TIMEOUT_S = 2.0
# Even, because pairs of loads become one.
MAX_LOADS = 240
# The figures of a Load that are means; `queries` and `hits` are sums.
MEANS = ("busy", "running", "waiting", "kv_usage")
# vLLM calls a data-parallel rank an engine.
_ENGINE = re.compile(r'[{,]engine="([0-9]{1,5})"')
_BLOCK_SIZE = re.compile(r'[{,]block_size="([1-9][0-9]{0,5})"')


@dataclass(frozen=True)
class Metrics:
    """One look at a server. Sums over its ranks, but for `kv_usage`, which is the mean of the shares in use.

    `busy` ranks run a request. `queries` and `hits` are prompt tokens since the start of the server: those that were
    looked for in the prefix caches, and those found. A prefix is cached in whole blocks of `block_size` tokens; 1 where
    the server does not say it.
    """

    ranks: int
    busy: int
    running: float
    waiting: float
    kv_usage: float
    queries: float
    hits: float
    block_size: int


async def read_metrics(model: ChatModel) -> Metrics | None:
    """One look at the server of `model`; None if it has no such page, is not vLLM, or does not answer now."""
    return parse_metrics(await model.fetch_page("../metrics"))


def parse_metrics(text: str) -> Metrics | None:
    """The figures in the text of a metrics page (Prometheus' text format); None if it is not that of vLLM."""
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        engine = _ENGINE.search(head)
        if engine and line.startswith("vllm:"):
            found[head.partition("{")[0]][engine[1]] = _count(value)
    queries = found["vllm:prefix_cache_queries_total"]
    if not queries:
        return None
    running, usage = found["vllm:num_requests_running"], found["vllm:kv_cache_usage_perc"]
    return Metrics(
        ranks=len(queries),
        busy=sum(requests > 0 for requests in running.values()),
        running=_sum(running),
        waiting=_sum(found["vllm:num_requests_waiting"]),
        kv_usage=_sum(usage) / max(1, len(usage)),
        queries=_sum(queries),
        hits=_sum(found["vllm:prefix_cache_hits_total"]),
        block_size=_block_size(text),
    )


def _block_size(text: str) -> int:
    for line in text.splitlines():
        found = _BLOCK_SIZE.search(line) if line.startswith("vllm:cache_config_info") else None
        if found:
            return int(found[1])
    return 1


def _sum(values: Mapping[str, float]) -> float:
    return sum(values.values())


def _count(text: str) -> float:
    try:
        return max(0.0, number(float(text)) or 0.0)
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class Load:
    """All servers of a run since the load before, until `at_s` seconds after the start of the run.

    `busy` is the share of ranks that ran a request, `running` and `waiting` are requests, `kv_usage` is the share of
    the KV cache in use: means over the looks of this time. `queries` and `hits` are those of Metrics, of this time.
    """

    at_s: float
    busy: float
    running: float
    waiting: float
    kv_usage: float
    queries: float
    hits: float


class Watch:
    """Looks at the servers of a run every INTERVAL_S seconds while it is entered. It never fails.

    `loads` has at most MAX_LOADS entries: in a longer run each of them stands for more looks. `queries` and `hits` are
    those of the whole time. A server counts while it gives metrics. `block_size`: see Metrics.
    """

    def __init__(self, models: Sequence[ChatModel]) -> None:
        self.loads: list[Load] = []
        self.queries = self.hits = 0.0
        self.block_size = 1
        self._models = models
        self._before: list[Metrics | None] = [None] * len(models)
        self._looks: list[Load] = []
        self._looks_per_load = 1

    async def __aenter__(self) -> None:
        self._started_at = time.monotonic()
        await self._look_soon()
        self._task = asyncio.create_task(self._run())

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._look_soon()
        if self._looks:
            self.loads.append(merge_loads(self._looks))

    async def _look_soon(self) -> None:
        """For the counters alone: before and after the samples, the servers are idle."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EDGE_TIMEOUT_S):
                await self._look()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            if look := await self._look():
                self._keep(look)

    async def _look(self) -> Load | None:
        """One look at all servers, which adds to the counts; None if none of them gives metrics."""
        found = await asyncio.gather(*map(read_metrics, self._models))
        added = [_added(before, now) for before, now in zip(self._before, found, strict=True) if now]
        queries, hits = sum(one[0] for one in added), sum(one[1] for one in added)
        self.queries, self.hits = self.queries + queries, self.hits + hits
        self._before = [now or before for before, now in zip(self._before, found, strict=True)]
        there = [now for now in found if now]
        self.block_size = max([self.block_size, *(now.block_size for now in there)])
        return _load(time.monotonic() - self._started_at, there, queries, hits) if there else None

    def _keep(self, look: Load) -> None:
        self._looks.append(look)
        if len(self._looks) == self._looks_per_load:
            self.loads.append(merge_loads(self._looks))
            self._looks = []
        if len(self.loads) == MAX_LOADS:
            self.loads = [merge_loads(self.loads[place : place + 2]) for place in range(0, MAX_LOADS, 2)]
            self._looks_per_load *= 2


def _added(before: Metrics | None, now: Metrics) -> tuple[float, float]:
    """The queries and hits since the look before. A server that was restarted has counted from zero."""
    if before is None:
        return 0.0, 0.0
    if now.queries < before.queries:
        return now.queries, now.hits
    return now.queries - before.queries, max(0.0, now.hits - before.hits)


def _load(at_s: float, there: Sequence[Metrics], queries: float, hits: float) -> Load:
    return Load(
        at_s=at_s,
        busy=sum(one.busy for one in there) / sum(one.ranks for one in there),
        running=sum(one.running for one in there),
        waiting=sum(one.waiting for one in there),
        kv_usage=fmean(one.kv_usage for one in there),
        queries=queries,
        hits=hits,
    )


def merge_loads(loads: Sequence[Load]) -> Load:
    """Loads that follow one another as one."""
    means = {name: fmean(getattr(one, name) for one in loads) for name in MEANS}
    sums = {name: sum(getattr(one, name) for one in loads) for name in ("queries", "hits")}
    return Load(at_s=loads[-1].at_s, **means, **sums)
