"""What a vLLM server says of itself on /metrics: its data-parallel ranks, their load, and the hits of their caches."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eva.json_text import number

if TYPE_CHECKING:
    from eva.endpoint.client import ChatModel

# vLLM calls a data-parallel rank an engine.
_ENGINE = re.compile(r'[{,]engine="([0-9]{1,5})"')


@dataclass(frozen=True)
class Metrics:
    """One look at a server. Sums over its ranks, but for `kv_usage`, which is the mean of the shares in use.

    `busy` ranks run a request. `queries` and `hits` are prompt tokens since the start of the server: those that were
    looked for in the prefix caches, and those found.
    """

    ranks: int
    busy: int
    running: float
    waiting: float
    kv_usage: float
    queries: float
    hits: float


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
    )


def _sum(values: Mapping[str, float]) -> float:
    return sum(values.values())


def _count(text: str) -> float:
    try:
        return max(0.0, number(float(text)) or 0.0)
    except ValueError:
        return 0.0
