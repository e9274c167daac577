"""Where the time of a run went, as its meta file says it (docs/records.md): over time, and in three lines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eva.json_text import items, mapping, number

# Fewer looks at the servers tell little.
MIN_LOOKS = 10
# From here on the servers have enough to do.
BUSY_SHARE = 0.9
# From here on a wait is worth to be shortened.
LONG_SHARE = 0.2
# Below this share of what can be cached, the caches miss something.
CACHED_SHARE = 0.9
# A run has at most 240 rows of load, and no number that is larger. A meta file may come from anybody.
MAX_ROWS, MAX_NUMBER = 1000, 1e9
_SAMPLES = ("seconds", "seat_s", "server_s", "frames_s")
_SERVERS = ("busy", "running", "waiting", "kv_usage")
_LOAD = ("at_s", "running", "waiting", "kv_usage", "queries", "hits")


def read_time_use(value: object) -> dict[str, Any]:
    """The figures of one run as `time_lines` takes them; each row of `load` is a mapping, and they are in order."""
    figures = mapping(value)
    samples, tokens, servers = (mapping(figures.get(name)) for name in ("samples", "prompt_tokens", "servers"))
    return {
        "samples": {name: _known(samples.get(name)) or 0 for name in _SAMPLES},
        "prompt_tokens": {name: _known(tokens.get(name)) for name in ("cacheable_share", "cached_share")},
        "servers": {name: _known(servers.get(name)) or 0 for name in _SERVERS} if servers else None,
        "load": {"rows": _rows(mapping(figures.get("load")))},
    }


def _rows(load: Mapping[str, Any]) -> list[dict[str, float]]:
    columns = list(map(str, items(load.get("columns"))))
    rows = (dict(zip(columns, map(_known, items(row)), strict=False)) for row in items(load.get("rows"))[:MAX_ROWS])
    numbers = ({name: row.get(name) for name in _LOAD} for row in rows)
    usable = [{name: one for name, one in row.items() if one is not None} for row in numbers]
    return sorted((row for row in usable if len(row) == len(_LOAD)), key=lambda row: row["at_s"])


def _known(value: object) -> float | None:
    found = number(value)
    return None if found is None else min(max(0.0, float(found)), MAX_NUMBER)


def time_lines(figures: Mapping[str, Any]) -> list[str]:
    """Up to three lines; what nothing tells has no line, such as the caches where no whole block repeats."""
    waits = figures["samples"]
    if not waits["seconds"]:
        return []
    tokens, servers = figures["prompt_tokens"], figures["servers"]
    if len(figures["load"]["rows"]) < MIN_LOOKS:
        servers = None
    shares = {name: waits[name] / waits["seconds"] for name in ("frames_s", "seat_s", "server_s")}
    lines = [_servers_line(servers, shares["frames_s"])] if servers else []
    lines += [_cache_line(tokens)] if tokens["cached_share"] is not None and tokens["cacheable_share"] else []
    return [*lines, _waits_line(shares, servers)]


def _servers_line(servers: Mapping[str, float], frames_share: float) -> str:
    said = (
        f"Servers: busy {servers['busy']:.0%} of the time, {servers['running']:.1f} requests running, "
        f"{servers['waiting']:.1f} waiting, KV cache {servers['kv_usage']:.0%} full"
    )
    if servers["waiting"] >= 1:
        return f"{said}: a higher --max-concurrent would not help"
    if servers["busy"] >= BUSY_SHARE:
        return f"{said}: they have enough to do"
    return (
        f"{said}: {'frames come too slowly' if frames_share >= LONG_SHARE else 'a higher --max-concurrent would help'}"
    )


def _cache_line(tokens: Mapping[str, Any]) -> str:
    cached, possible = tokens["cached_share"], tokens["cacheable_share"]
    said = f"Prompt tokens: {cached:.0%} from the servers' caches, of {possible:.0%} that repeat an earlier round"
    missed = cached < possible * CACHED_SHARE
    return f"{said}: see 'Where the time goes' in docs/servers.md" if missed else f"{said}: the caches work"


def _waits_line(shares: Mapping[str, float], servers: Mapping[str, float] | None) -> str:
    said = (
        f"Samples waited {shares['server_s']:.0%} of their time for replies, {shares['seat_s']:.0%} for their turn at "
        f"a server, {shares['frames_s']:.0%} for frames"
    )
    idle = servers is None or servers["busy"] < BUSY_SHARE
    helps = shares["frames_s"] >= LONG_SHARE and idle
    return f"{said}: more --frame-workers {'may' if helps else 'would not'} help"
