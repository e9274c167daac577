"""Runs that are killed, servers that die, disks that fill up: the records at the end are those of a quiet run."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import (
    Bench,
    Run,
    beside,
    block,
    call,
    kill_group,
    lasting,
    read_whole_lines,
    row,
    wait_until,
)
from killable import KillableServer, killable
from scripted_server import Script, ScriptedServer

ANSWER = "<answer>B</answer>"
# How often the run of 200 samples is killed. Each kill costs the start of a process, two to three CPU-seconds; 20 is
# the number to prove the point with, and what EVA_TEST_KILLS=20 asks for.
KILLS = int(os.environ.get("EVA_TEST_KILLS", "3"))
SEED = int(os.environ.get("EVA_TEST_SEED", "6"))


def numbered(count: int) -> list[dict[str, Any]]:
    return [row(f"question {number}") for number in range(count)]


def check_same(run: Run, quiet: Run) -> None:
    assert run.code == 0, run.said
    assert quiet.code == 0, quiet.said
    assert "Traceback" not in run.stderr
    assert [lasting(record) for record in run.records()] == [lasting(record) for record in quiet.records()]


def recorded(bench: Bench) -> set[int]:
    return {record["index"] for record in read_whole_lines(bench.cache)}


def numbers(keys: Counter[str]) -> Counter[int]:
    return Counter(int(key.split()[1]) for key in keys.elements())


def meta(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".meta.json").read_text(encoding="utf-8"))


# --- the run is killed


def test_a_run_killed_at_random_moments_ends_with_the_records_of_an_undisturbed_one(
    bench_at: Callable[..., Bench],
) -> None:
    count = 200
    answers = ["<answer>B</answer>", "Answer: C", "nothing", "<tool_call>{}</tool_call>"]

    def replies(key: str) -> list[Any]:
        number = int(key.split()[1])
        if number % 40 == 7:
            return [block(call(0, 1, 2)), ANSWER]
        return [{"text": answers[number % len(answers)], "delay_s": number % 5 / 50}]

    dice = random.Random(SEED)
    with ScriptedServer(Script(replies)) as server, ScriptedServer(Script(replies)) as quiet_server:
        quiet_bench, bench = bench_at(quiet_server.base_url, "quiet"), bench_at(server.base_url)
        for one in (quiet_bench, bench):
            one.write(numbered(count))
        quiet = quiet_bench.run()
        for stage in sorted(dice.sample(range(1, count - 20), KILLS)):
            process = bench.start("--max-concurrent", "4")
            wait_until(lambda: len(recorded(bench)) >= stage)  # noqa: B023  called before it changes
            time.sleep(dice.uniform(0, 0.03))
            kill_group(process)
            process.communicate()
            before, asked_before = recorded(bench), numbers(server.journal.keys())
            if dice.random() < 0.5:
                with bench.cache.open("ab") as cache:
                    cache.write(b'{"index": 199, "videos": ["clip')
        run = bench.run("--max-concurrent", "4")
        asked = numbers(server.journal.keys())
    check_same(run, quiet)
    assert [record["index"] for record in run.records()] == list(range(count))
    assert all(asked[index] == asked_before[index] for index in before), "what is recorded is not asked again"
    at_work = 4 * 2
    assert sum(asked.values()) <= sum(numbers(quiet_server.journal.keys()).values()) + KILLS * at_work
    covered = {"items": count, "chosen": [[0, count - 1]], "recorded": count, "pending": 0, "complete": True}
    assert meta(run.result)["coverage"] == covered
    assert 1 < len(meta(run.result)["started"]) <= KILLS + 1, "some were killed before they began"


# --- the server is killed, hangs, and answers rubbish


TROUBLES: tuple[dict[str, Any], ...] = (
    {"status": 500, "times": 2},
    {"fault": "cut", "times": 1},
    {"fault": "broken_json", "times": 1},
    {"fault": "empty_choices", "times": 2},
    {"fault": "abort", "times": 1},
    {"fault": "drop", "times": 2},
    {"fault": "hang", "times": 1},
    {"status": 404, "times": 1},
    {"status": 429, "times": 1},
)


def test_a_server_that_dies_five_times_and_answers_rubbish_between_leaves_no_trace_in_the_records(
    bench_at: Callable[..., Bench], tmp_path: Path
) -> None:
    count = 60
    plain = {f"question {n}": [{"text": f"<answer>{'ABCD'[n % 4]}</answer>", "delay_s": 0.2}] for n in range(count)}
    plain["question 11"] = [{"text": block(call(0, 1, 2))}, {"text": ANSWER}]
    troubled = {
        key: [{**reply, **(TROUBLES[n // 4 % len(TROUBLES)] if n % 4 == 1 else {})} for reply in turns]
        for n, (key, turns) in enumerate(plain.items())
    }
    server = KillableServer(tmp_path / "server", {"replies": troubled})
    with killable(server), ScriptedServer(Script(plain)) as quiet_server:
        quiet_bench, bench = bench_at(quiet_server.base_url, "quiet"), bench_at(server.base_url)
        for one in (quiet_bench, bench):
            one.write(numbered(count))

        def kill_the_server() -> None:
            for stage in (4, 12, 20, 28, 36):
                wait_until(lambda: len(recorded(bench)) >= stage)  # noqa: B023  called before it changes
                server.kill()
                server.start()

        with beside(kill_the_server):
            run = bench.run("--max-concurrent", "6", "--request-timeout", "4")
        check_same(run, quiet_bench.run())
    assert [record for record in run.records() if record["stop_reason"] == "exception"] == []


def test_of_two_servers_one_dies_and_comes_back_and_no_sample_is_lost_or_asked_on_both_but_the_dead_ones(
    bench_at: Callable[..., Bench], tmp_path: Path
) -> None:
    count = 160
    script = {"replies": {"*": [{"text": ANSWER, "delay_s": 0.3}]}}
    mortal, other = (KillableServer(tmp_path / name, script) for name in ("mortal", "other"))
    with killable(mortal, other):
        bench = bench_at(f"{mortal.base_url},{other.base_url}")
        bench.write(numbered(count))
        before_death = Counter[str]()

        def kill_one_for_a_while() -> None:
            wait_until(lambda: len(recorded(bench)) >= 16)
            mortal.kill()
            before_death.update(mortal.asked())
            wait_until(lambda: len(recorded(bench)) >= 48)
            mortal.start()

        with beside(kill_one_for_a_while):
            run = bench.run("--max-concurrent", "8")
        on_mortal, on_other = Counter(mortal.asked()), Counter(other.asked())
    assert run.code == 0, run.said
    assert [record["stop_reason"] for record in run.records()] == ["answer_found"] * count
    assert set((on_mortal + on_other).values()) <= {1, 2}
    moved = set(on_mortal) & set(on_other)
    assert moved <= set(before_death), "only what was under way on the dead one is asked elsewhere"
    assert len(moved) <= 8
    assert max(on_other.values()) == 1
    assert sum(on_mortal.values()) - sum(before_death.values()) > 10, "it is taken back when it answers"
    assert abs(2 * len(before_death) - 16) <= 12, "new samples go to the least loaded"


# --- outage


def test_an_outage_that_lasts_ends_the_run_saved_and_merged_and_the_same_command_goes_on(
    bench_at: Callable[..., Bench],
) -> None:
    count = 40
    script = Script({})

    def replies(key: str) -> list[Any]:
        script.down = script.down or int(key.split()[1]) == 25
        return [{"text": ANSWER, "delay_s": 0.05}]

    script.replies = replies
    with ScriptedServer(script) as server:
        bench = bench_at(server.base_url, "a folder with spaces")
        bench.write(numbered(count))
        flags = ("--outage-timeout", "3", "--max-concurrent", "4", "--api-key", "sesame")
        run = bench.run(*flags)
        assert "sesame" not in run.said, "a log is no place for a key"
        done = recorded(bench)
        assert run.code == 1, run.said
        assert "no server has answered for 3 s" in run.stderr
        assert "waiting for" in run.stderr, "the progress bar says what it waits for"
        assert "Traceback" not in run.stderr
        assert "(of a partial run)" in run.stdout
        assert {record["index"] for record in run.records()} == done
        assert 15 <= len(done) < count
        assert all(record["stop_reason"] == "answer_found" for record in run.records())
        chosen = {"items": count, "chosen": [[0, count - 1]]}
        expected = {**chosen, "recorded": len(done), "pending": count - len(done), "complete": False}
        assert meta(run.result)["coverage"] == expected
        assert meta(run.cache)["coverage"] == chosen
        asked = numbers(server.journal.keys())
        script.down, script.replies = False, lambda key: [ANSWER]
        on = bench.run()
    assert on.code == 0, on.said
    assert [record["index"] for record in on.records()] == list(range(count))
    assert all(numbers(server.journal.keys())[index] == asked[index] for index in done)


# --- interrupted


def interrupted(bench: Bench, signals: list[signal.Signals]) -> Run:
    bench.write(numbered(60))
    process = bench.start("--max-concurrent", "3", "--grace", "30")
    wait_until(lambda: len(recorded(bench)) >= 6)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)
    return bench.finish(process)


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM] * 5, 143),
    ],
    ids=["Ctrl-C", "SIGTERM again and again"],
)
def test_an_interrupted_run_keeps_what_finished_says_that_it_is_partial_and_goes_on(
    bench_at: Callable[..., Bench], signals: list[signal.Signals], code: int
) -> None:
    """Once: what is under way ends in its grace. Twice: at once, and still nothing is lost."""
    count, delay_s = 60, 2.0

    def replies(key: str) -> list[Any]:
        return [{"text": ANSWER, "delay_s": delay_s if int(key.split()[1]) >= 8 else 0.05}]

    with ScriptedServer(Script(replies)) as server:
        bench = bench_at(server.base_url)
        run = interrupted(bench, signals)
        asked = set(numbers(server.journal.keys()))
        done = {record["index"] for record in run.records()}
        assert run.code == code, run.said
        assert "Traceback" not in run.stderr
        assert done == recorded(bench) >= set(range(6))
        if len(signals) == 1:
            assert done == asked, "every sample that was asked ended"
        else:
            assert done < asked, "those under way were given up"
        assert len(done) <= 11
        assert "(of a partial run)" in run.stdout
        assert meta(run.result)["coverage"]["complete"] is False
        server.script.replies = lambda key: [ANSWER]
        on = bench.run()
    assert on.code == 0, on.said
    assert [record["index"] for record in on.records()] == list(range(count))
    assert meta(on.result)["coverage"]["complete"] is True


# --- caches


def test_a_cache_of_the_reference_has_no_settings_beside_it_and_loads_as_it_is(bench_at: Callable[..., Bench]) -> None:
    old = {
        "index": 0, "videos": ["clip.mp4"], "messages": "text", "gt": "B", "answer": "B",
        "stop_reason": "answer_found", "num_rounds": 1, "total_tokens": 9, "estimated_visual_tokens": 0,
    }  # fmt: skip
    with ScriptedServer(Script(lambda key: [ANSWER])) as server:
        bench = bench_at(server.base_url)
        bench.write(numbered(2))
        bench.output_dir.mkdir(parents=True)
        bench.cache.write_text(json.dumps(old) + "\n", encoding="utf-8")
        merged = bench.run("--ids", "0")
        assert merged.code == 0, merged.said
        assert meta(merged.result)["coverage"]["complete"] is False, "one question was never asked"
        run = bench.run()
        assert run.code == 0, run.said
        assert server.journal.keys() == Counter({"question 1": 1})
    assert run.by_index()[0] == old
    assert meta(run.result)["adopted"] is True, "nobody knows what it was made with"


# --- no room on the disk


def test_a_disk_that_fills_up_under_the_cache_ends_the_run_with_a_cache_that_loads(
    bench_at: Callable[..., Bench],
) -> None:
    count = 40
    with ScriptedServer(Script(lambda key: [{"text": "x" * 2000 + ANSWER, "delay_s": 0.02}])) as server:
        bench = bench_at(server.base_url)
        bench.write(numbered(count))
        bench.output_dir.mkdir(parents=True)
        process = bench.start("--max-concurrent", "4")
        # Writing beyond fails as on a full disk, in the middle of a write. The run's imports take seconds.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (70_001, 70_001))
        run = bench.finish(process)
        assert run.code == 1, run.said
        assert "Traceback" not in run.stderr
        assert str(bench.cache) in run.stderr
        room = f"make room on the disk of {bench.output_dir}, or choose another folder with --output-dir"
        assert f"only part of the record: {room}; to go on:" in run.stderr
        assert bench.cache.read_bytes().endswith(b"\n"), "the half record is taken back"
        done = recorded(bench)
        assert 5 < len(done) < count
        assert {record["index"] for record in run.records()} == done
        on = bench.run()
        asked = numbers(server.journal.keys())
    assert on.code == 0, on.said
    assert [record["index"] for record in on.records()] == list(range(count))
    assert all(asked[index] == 1 for index in done)
