"""Where the time of a run goes: counted while it runs, then the figures of the meta file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from typing import Any

from eva.endpoint.metrics import MEANS, Load, Watch, merge_loads
from eva.records.schema import Record

# So many runs of one cache are kept.
MAX_RUNS = 10


@dataclass
class SampleTimes:
    """Sums over the samples of a run that ended with a record.

    `cacheable_tokens` of the prompts are whole blocks of the round before and its reply: a cache can have them.
    `cached_tokens` came from one, as the replies say; `uncounted` rounds do not say it.
    """

    samples: int = 0
    seconds: float = 0.0
    seat_s: float = 0.0
    server_s: float = 0.0
    frames_s: float = 0.0
    prompt_tokens: int = 0
    cacheable_tokens: int = 0
    cached_tokens: int = 0
    uncounted: int = 0

    def add(self, record: Record, block_size: int) -> None:
        """A sample has ended. The servers cache prompts in whole blocks of `block_size` tokens."""
        self.samples += 1
        self.seconds += record.seconds or 0
        if record.waited is not None:
            for name, seconds in asdict(record.waited).items():
                setattr(self, name, getattr(self, name) + (seconds or 0))
        before = 0
        for usage in (round_.usage for round_ in record.rounds):
            prompt, total = int(usage.prompt_tokens or 0), int(usage.total_tokens or 0)
            self.prompt_tokens += prompt
            # Of a reply, the last token is not computed; of a prompt, the last one always is.
            self.cacheable_tokens += max(0, min(prompt, before) - 1) // block_size * block_size
            self.cached_tokens += int(usage.cached_tokens or 0)
            self.uncounted += usage.cached_tokens is None
            before = total


@dataclass(frozen=True)
class TimeUse:
    """Where the time of a run goes; `servers` is to be entered while its samples run."""

    servers: Watch
    samples: SampleTimes = field(default_factory=SampleTimes)

    def add(self, record: Record) -> None:
        """A sample has ended."""
        self.samples.add(record, self.servers.block_size)

    def figures(self) -> dict[str, Any]:
        """See time_figures."""
        return time_figures(self.samples, self.servers.loads, queries=self.servers.queries, hits=self.servers.hits)


def time_figures(times: SampleTimes, loads: Sequence[Load], *, queries: float, hits: float) -> dict[str, Any]:
    """The figures for programs. Shares are fractions; None is what nothing tells."""
    return {
        "samples": {
            "count": times.samples,
            "seconds": round(times.seconds, 3),
            "seat_s": round(times.seat_s, 3),
            "server_s": round(times.server_s, 3),
            "frames_s": round(times.frames_s, 3),
        },
        "prompt_tokens": {
            "total": times.prompt_tokens,
            "cacheable_share": _share(times.cacheable_tokens, times.prompt_tokens),
            "cached_share": _cached_share(times, queries, hits),
        },
        "servers": _means(loads),
        "load": {"columns": [one.name for one in fields(Load)], "rows": [_row(load) for load in loads]},
    }


def _cached_share(times: SampleTimes, queries: float, hits: float) -> float | None:
    """As the replies say it; where they do not, as the servers count it, over all that they were asked meanwhile."""
    if times.prompt_tokens and not times.uncounted:
        return _share(times.cached_tokens, times.prompt_tokens)
    return _share(hits, queries)


def _means(loads: Sequence[Load]) -> dict[str, float] | None:
    if not loads:
        return None
    mean = merge_loads(loads)
    return {name: round(getattr(mean, name), 4) for name in MEANS}


def _row(load: Load) -> list[float]:
    return [round(value, 4) for value in astuple(load)]


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
