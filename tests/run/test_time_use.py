"""Where the time of a run went: the figures, and what a person is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from eva.endpoint.completion import Usage, read_reply
from eva.endpoint.metrics import MAX_LOADS, Load, Metrics, Watch, parse_metrics
from eva.records.schema import Record, read_record
from eva.records.time_use import MIN_LOOKS, read_time_use, time_lines
from eva.run.time_use import SampleTimes, time_figures

LOAD = Load(at_s=5.0, busy=1.0, running=20.0, waiting=0.0, kv_usage=0.5, queries=100.0, hits=40.0)
BUSY, IDLE = [LOAD] * MIN_LOOKS, [replace(LOAD, busy=0.5)] * MIN_LOOKS


def record(*prompts: tuple[int, int, int | None], frames_s: float = 1.0) -> Record:
    """Ten seconds, with rounds of prompt, completion and cached tokens."""
    rounds = [
        {"usage": {"prompt_tokens": prompt, "total_tokens": prompt + said, "cached_tokens": cached}}
        for prompt, said, cached in prompts
    ]
    waited = {"seat_s": 0.5, "server_s": 8.0, "frames_s": frames_s}
    return read_record({"index": 1, "trajectory": rounds, "seconds": 10, "waited": waited, "schema": 1})


def counted(*records: Record, block_size: int = 32) -> SampleTimes:
    times = SampleTimes()
    for one in records:
        times.add(one, block_size)
    return times


def lines_of(times: SampleTimes, loads: list[Load], *, queries: float = 0, hits: float = 0) -> list[str]:
    return time_lines(time_figures(times, loads, queries=queries, hits=hits))


def test_the_figures_add_up_over_samples_and_what_can_be_cached_is_whole_blocks_of_the_round_before() -> None:
    times = counted(record((100, 20, 0), (200, 30, 96), (250, 10, 224)), record((100, 20, 64)))
    figures = time_figures(times, [LOAD, replace(LOAD, at_s=10.0, busy=0.5)], queries=9, hits=1)
    assert figures["samples"] == {"count": 2, "seconds": 20, "seat_s": 1.0, "server_s": 16.0, "frames_s": 2.0}
    cacheable = 96 + 224  # of 119 and 229: each last token is computed anew
    assert figures["prompt_tokens"] == {
        "total": 650,
        "cacheable_share": round(cacheable / 650, 4),
        "cached_share": round((96 + 224 + 64) / 650, 4),
    }
    assert figures["servers"] == {"busy": 0.75, "running": 20, "waiting": 0, "kv_usage": 0.5}
    assert figures["load"]["columns"] == ["at_s", "busy", "running", "waiting", "kv_usage", "queries", "hits"]
    assert figures["load"]["rows"] == [[5, 1, 20, 0, 0.5, 100, 40], [10, 0.5, 20, 0, 0.5, 100, 40]]


def test_where_a_reply_does_not_say_what_was_cached_the_servers_count_tells() -> None:
    times = counted(record((100, 20, 0), (200, 30, None)))
    assert time_figures(times, [], queries=400, hits=100)["prompt_tokens"]["cached_share"] == 0.25
    assert time_figures(times, [], queries=0, hits=0)["prompt_tokens"]["cached_share"] is None


def test_records_that_say_nothing_of_waits_or_tokens_count_as_samples() -> None:
    times = counted(read_record({"index": 1}), read_record({"index": 2, "waited": {"seat_s": "x"}, "schema": 1}))
    assert (times.samples, times.seconds, times.prompt_tokens) == (2, 0, 0)
    assert lines_of(times, BUSY) == []


def test_three_lines_say_how_the_time_was_used() -> None:
    assert lines_of(counted(record((100, 20, 0), (100, 20, 96))), BUSY) == [
        "Servers: busy 100% of the time, 20.0 requests running, 0.0 waiting, KV cache 50% full: they have enough to do",
        "Prompt tokens: 48% from the servers' caches, of 48% that repeat an earlier round: the caches work",
        "Samples waited 80% of their time for replies, 5% for their turn at a server, 10% for frames: "
        "more --frame-workers would not help",
    ]


@pytest.mark.parametrize(
    ("frames_s", "loads", "servers", "samples"),
    [
        (1.0, IDLE, "a higher --max-concurrent would help", "would not help"),
        (5.0, IDLE, "frames come too slowly", "more --frame-workers may help"),
        (5.0, BUSY, "they have enough to do", "would not help"),
        (1.0, [replace(LOAD, waiting=3.0)] * MIN_LOOKS, "a higher --max-concurrent would not help", "would not help"),
        (5.0, BUSY[1:], "", "more --frame-workers may help"),
    ],
)
def test_the_advice_follows_from_what_was_waited_for(
    frames_s: float, loads: list[Load], servers: str, samples: str
) -> None:
    lines = lines_of(counted(record((100, 20, None), frames_s=frames_s)), loads)
    assert lines[0].endswith(servers) if servers else len(lines) == 1
    assert lines[-1].endswith(samples)


def test_caches_that_miss_what_repeats_are_said_with_where_to_read_on() -> None:
    (line, _) = lines_of(counted(record((100, 20, 0), (200, 20, 10)), block_size=1), [])
    assert line.endswith(
        "3% from the servers' caches, of 40% that repeat an earlier round: see 'Where the time goes' in docs/servers.md"
    )


def test_where_no_whole_block_repeats_nothing_is_said_of_the_caches() -> None:
    (line,) = lines_of(counted(record((100, 20, 0), (200, 20, 0)), block_size=128), [])
    assert line.startswith("Samples waited")


def test_the_meta_file_says_the_same_lines_when_it_is_read_back() -> None:
    figures = time_figures(counted(record((100, 20, 0), (100, 20, 96))), BUSY, queries=0, hits=0)
    lines = time_lines(read_time_use(json.loads(json.dumps(figures))))
    assert len(lines) == 3 and lines == time_lines(figures)


@pytest.mark.parametrize("value", [None, [], "x", -1, 1e308, 10**400, float("nan"), {"seconds": "x"}, {"seconds": 5}])
def test_a_meta_file_from_anybody_gives_lines_or_none(value: Any) -> None:
    names = ("samples", "prompt_tokens", "servers", "load")
    assert time_lines(read_time_use(value)) == []
    assert len(time_lines(read_time_use(dict.fromkeys(names, value)))) <= 1
    parts = {"samples": dict.fromkeys(("seconds", "frames_s"), value), "prompt_tokens": {"cached_share": value}}
    assert all("nan" not in line for line in time_lines(read_time_use(parts)))


# --- what a server says


def page(*engines: tuple[float, float, float, float, float]) -> str:
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
             "prefix_cache_queries_total", "prefix_cache_hits_total")  # fmt: skip
    lines = ["# HELP vllm:num_requests_running Number.", 'python_gc_objects_collected_total{generation="0"} 7.0']
    for rank, values in enumerate(engines):
        labels = f'{{engine="{rank}",model_name="a \\"model\\" {{x}}"}}'
        lines += [f"vllm:{name}{labels} {value}" for name, value in zip(names, values, strict=True)]
    return "\n".join(lines)


def test_a_metrics_page_is_summed_over_its_ranks() -> None:
    info = '\nvllm:cache_config_info{block_size="32",cache_dtype="auto",engine="0"} 1.0'
    found = parse_metrics(page((2, 1, 0.25, 1e3, 100), (0, 0, 0.75, 3e3, 400)) + info)
    assert found == Metrics(ranks=2, busy=1, running=2, waiting=1, kv_usage=0.5, queries=4000, hits=500, block_size=32)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "<html>", 'vllm:prefix_cache_queries_total{model_name="x"} 5', 'other:x{engine="0"} 5',
     'vllm:prefix_cache_queries_total{engine="999999"} 5'],
)  # fmt: skip
def test_what_is_not_vllms_page_says_nothing(text: str) -> None:
    assert parse_metrics(text) is None


def test_values_that_cannot_be_count_as_nothing() -> None:
    nan: Any = float("nan")
    found = parse_metrics(page((nan, -5, float("inf"), 7, 2)) + '\nvllm:num_requests_running{engine="1"} many')
    assert found == Metrics(ranks=1, busy=0, running=0, waiting=0, kv_usage=0, queries=7, hits=2, block_size=1)


@pytest.mark.parametrize(
    ("details", "cached"),
    [(None, None), ({}, None), ({"cached_tokens": 0}, 0), ({"cached_tokens": 32}, 32), ({"cached_tokens": None}, None),
     ({"cached_tokens": -1}, None), ({"cached_tokens": True}, None), ({"cached_tokens": "9"}, None), ([1], None)],
)  # fmt: skip
def test_a_reply_says_how_much_was_cached_or_nothing(details: Any, cached: int | None) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 1, "total_tokens": 51, "prompt_tokens_details": details}
    choice = {"message": {"content": "a"}, "finish_reason": "stop"}
    assert read_reply({"choices": [choice], "usage": usage}).usage == Usage(50, 1, 51, cached)


def test_a_long_run_keeps_a_bounded_number_of_loads_that_stand_for_all_looks() -> None:
    watch = Watch([])
    looks = 5 * MAX_LOADS
    for number in range(looks):
        watch._keep(replace(LOAD, at_s=number, running=number, queries=1, hits=0.5))
    assert len(watch.loads) < MAX_LOADS
    assert sum(load.queries for load in watch.loads) + len(watch._looks) == looks
    assert watch.loads[0].running == pytest.approx((watch._looks_per_load - 1) / 2)
    assert [load.at_s for load in watch.loads] == sorted(load.at_s for load in watch.loads)
