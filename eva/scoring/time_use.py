"""Where the time of samples went, and how much of their prompts came from the servers' caches, by their records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import gcd
from typing import Any

from eva.records.schema import Number, Record, Waited

# From here on a wait for frames is worth to be shortened.
LONG_SHARE = 0.2
# Below this share of what can be cached, the caches miss something.
CACHED_SHARE = 0.9
# No time and no count of tokens is larger. A record may come from anybody.
_MOST = 1e12


@dataclass(frozen=True)
class SampleTimes:
    """Of one sample: its seconds, what it waited for of them in the order of Waited, and three counts of each round.

    The counts are the tokens of the prompt, those that the round before had already (its prompt and its reply), and
    those that came from a cache; None where the reply does not say it.
    """

    seconds: float
    waited: tuple[float, ...]
    rounds: tuple[tuple[int, int, int | None], ...]


def sample_times(record: Record) -> SampleTimes:
    """The times and tokens of one record."""
    rounds, before = [], 0
    for usage in (round_.usage for round_ in record.rounds):
        prompt = int(_usable(usage.prompt_tokens))
        # Of a reply, the last token is not computed; of a prompt, the last one always is.
        repeated = max(0, min(prompt, before) - 1)
        rounds.append((prompt, repeated, None if usage.cached_tokens is None else int(_usable(usage.cached_tokens))))
        before = int(_usable(usage.total_tokens))
    waited = tuple(_usable(getattr(record.waited, one.name, None)) for one in fields(Waited))
    return SampleTimes(_usable(record.seconds), waited, tuple(rounds))


def _usable(value: Number) -> float:
    return min(max(0.0, float(value or 0)), _MOST)


def time_figures(samples: Iterable[SampleTimes]) -> dict[str, Any]:
    """The figures for programs, over all samples (docs/records.md). Shares are fractions, None where nothing tells.

    A cache holds whole blocks: what can be cached is counted in those by which all cached counts can be divided.
    """
    samples = list(samples)
    rounds = [one for sample in samples for one in sample.rounds]
    cached = [count for _, _, count in rounds if count is not None]
    block = gcd(*cached) or 1
    total, possible = sum(one[0] for one in rounds), sum(repeated // block * block for _, repeated, _ in rounds)
    known = total and len(cached) == len(rounds)
    sums = [sum(column) for column in zip(*(sample.waited for sample in samples), strict=True)]
    names = [one.name for one in fields(Waited)]
    return {
        "samples": {
            "count": len(samples),
            "seconds": round(sum(sample.seconds for sample in samples), 3),
            **{name: round(seconds, 3) for name, seconds in zip(names, sums or [0.0] * len(names), strict=True)},
        },
        "prompt_tokens": {
            "total": total,
            "cacheable_share": round(possible / total, 4) if known else None,
            "cached_share": round(sum(cached) / total, 4) if known else None,
        },
    }


def time_lines(figures: Mapping[str, Any]) -> list[str]:
    """Up to two lines for a person; what nothing tells has no line, such as the caches where nothing repeats."""
    waits, tokens = figures["samples"], figures["prompt_tokens"]
    lines = []
    if tokens["cacheable_share"]:
        cached, possible = tokens["cached_share"], tokens["cacheable_share"]
        missed = ": see 'Where the time goes' in docs/servers.md" if cached < possible * CACHED_SHARE else ""
        lines.append(f"Prompt tokens: cached {cached:.0%} of {possible:.0%} possible{missed}")
    if waits["seconds"]:
        server, seat, frames = (waits[name] / waits["seconds"] for name in ("server_s", "seat_s", "frames_s"))
        helps = ": more --frame-workers may help" if frames >= LONG_SHARE else ""
        said = f"Samples waited {server:.0%} of their time for replies, {seat:.0%} for their turn at a server"
        lines.append(f"{said}, {frames:.0%} for frames{helps}")
    return lines
