"""Cache, resume, confirmations and result of eval-eva.py as a process."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import select
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, Run, environment, kill_group, make_video, read_records, read_whole_lines, row, wait_until
from scripted_server import Script, ScriptedServer

ANSWER = "<answer>B</answer>"
SETTLED = ("answer_found", "max_turns_exceeded", "no_answer_no_tool_call", "no_valid_tool_call")
UNSETTLED = ("exception", "openai_bad_request", "call_frame_select_failed", "arguments_not_json; no_nframes")


def old_record(index: int, *, stop_reason: str = "answer_found", answer: str = "A", **more: Any) -> dict[str, Any]:
    """A record as the reference wrote it, without a trajectory."""
    return {
        "index": index,
        "videos": ["clip.mp4"],
        "messages": "old " + "é",
        "gt": "B",
        "answer": answer if stop_reason == "answer_found" else "",
        "stop_reason": stop_reason,
        "num_rounds": 1,
        "total_tokens": 10,
        "estimated_visual_tokens": 0,
        **more,
    }


def line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


@dataclass
class Place:
    """A bench with its server; question n is answered by <answer>B</answer>."""

    bench: Bench
    server: ScriptedServer

    def cache(self, text: str | bytes) -> None:
        self.bench.output_dir.mkdir(parents=True, exist_ok=True)
        self.bench.cache.write_bytes(text if isinstance(text, bytes) else text.encode())

    def asked(self) -> Counter[int]:
        return Counter(int(key.split()[1]) for key in self.server.journal.keys().elements())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "clip.mp4", frames=10)


@pytest.fixture
def place(tmp_path: Path, tokenizer_dir: Path, clip: Path) -> Iterator[Place]:
    with ScriptedServer(Script(lambda key: [ANSWER])) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        (bench.videos / "clip.mp4").symlink_to(clip)
        yield Place(bench, server)
        assert server.journal.unexpected == []


def records_in(cache: Path) -> set[int]:
    """The indices that someone finds who reads the cache line by line and passes over what is not JSON."""
    found = set()
    for text in cache.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            record = json.loads(text)
            found |= {record["index"]} if isinstance(record, dict) and "stop_reason" in record else set()
    return found


def numbered(count: int) -> list[dict[str, Any]]:
    return [row(f"question {number}") for number in range(count)]


def check_whole(run: Run, count: int) -> None:
    assert run.code == 0, run.said
    assert [record["index"] for record in run.records()] == list(range(count))


# --- what is in the cache when a run starts


def test_recorded_items_are_not_run_again_and_every_broken_line_costs_only_itself(place: Place) -> None:
    whole = [
        line(old_record(0)),
        "not JSON\n",
        line(old_record(1, answer="A")),
        "[1, 2]\n",
        '{"foo": 1}\n',
        "\n",
        '{"index": "2", "answer": "B"}\n',
        "null\n",
        line(old_record(1, answer="C")),
        line(old_record(7, answer="B")),
        line(old_record(2, stop_reason="exception", error="RuntimeError")),
    ]
    torn = line(old_record(3))[:40].encode()
    place.cache("".join(whole).encode() + b"\xff\xfe\x00\n" + torn)
    place.server.script.replies = lambda key: ["<answer>視é🎬</answer>" if key == "question 5" else ANSWER]
    place.bench.write(numbered(8))
    run = place.bench.run("--sample", "6")
    assert run.code == 3, run.said
    assert place.asked() == {3: 1, 4: 1, 5: 1}
    records = run.by_index()
    assert list(records) == [0, 1, 2, 3, 4, 5, 7], "the result is the whole cache, sorted, one line each"
    assert records[0] == old_record(0), "a cached record is carried over as it is"
    assert records[1]["answer"] == "C", "the last line for an index wins"
    assert records[2]["stop_reason"] == "exception", "an error is not run again without --retry-error"
    assert [records[index]["answer"] for index in (3, 4, 5)] == ["B", "B", "視é🎬"]
    assert "line 2" in run.stderr, "a line that is not JSON is skipped with a warning"
    assert "2/6 = 33.3333%" in run.stdout, "the items of the run are the denominator"
    assert records_in(run.cache) >= {3, 4, 5}, "no new record is glued to the torn line"
    for path in (run.cache, run.result):
        assert "視é🎬".encode() in path.read_bytes(), "records are not ASCII-escaped"


def test_a_second_run_asks_nothing_and_leaves_the_same_result(place: Place) -> None:
    """And a last line that lacks only its newline counts, and stays a line of its own."""
    place.cache(line(old_record(0)).rstrip("\n"))
    place.bench.write(numbered(3))
    first = place.bench.run()
    check_whole(first, 3)
    assert sorted(record["index"] for record in read_records(first.cache)) == [0, 1, 2]
    before = first.result.read_bytes(), first.cache.read_bytes()
    second = place.bench.run()
    check_whole(second, 3)
    assert (second.result.read_bytes(), second.cache.read_bytes()) == before
    assert place.asked() == {1: 1, 2: 1}


# --- --retry-error and --new-cache


def unsettled_cache() -> list[dict[str, Any]]:
    settled = [old_record(n, stop_reason=reason) for n, reason in enumerate(SETTLED)]
    unsettled = [old_record(4 + n, stop_reason=reason) for n, reason in enumerate(UNSETTLED)]
    return [*settled, *unsettled, old_record(8, error="an error beside an answer")]


def test_new_cache_deletes_the_cache_first(place: Place) -> None:
    place.cache(line(old_record(0)) + line(old_record(99)))
    place.bench.write(numbered(2))
    run = place.bench.run("--new-cache", "--yes")
    check_whole(run, 2)
    assert place.asked() == {0: 1, 1: 1}
    assert sorted(record["index"] for record in read_records(run.cache)) == [0, 1]


def on_terminal(bench: Bench, *flags: str, typed: str) -> tuple[int, str]:
    """Run with a terminal on which someone types; (exit code, what the terminal showed)."""
    ours, theirs = pty.openpty()
    bench.output_dir.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        bench.command(*flags), stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), start_new_session=True
    )
    os.close(theirs)
    shown, answered, deadline = b"", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.1)
        if not ready:
            continue
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if b"(y/N)" in shown and not answered:
            os.write(ours, typed.encode())
            answered = True
    else:
        kill_group(process)
    os.close(ours)
    return process.wait(timeout=10), shown.decode(errors="replace")


def test_a_confirmation_that_is_not_given_changes_nothing(place: Place) -> None:
    before = "".join(map(line, unsettled_cache()))
    place.cache(before)
    place.bench.write(numbered(9))
    code, shown = on_terminal(place.bench, "--new-cache", typed="n\n")
    assert "(y/N)" in shown
    assert code == 1, shown
    assert "Traceback" not in shown
    assert place.bench.cache.read_text(encoding="utf-8") == before
    assert not place.bench.result.exists() or place.bench.result.read_text(encoding="utf-8") == before
    assert place.asked() == {}


def test_retry_error_runs_again_what_has_an_error_or_another_stop_reason_and_drops_the_old_lines(place: Place) -> None:
    """Confirmed on a terminal."""
    place.cache("".join(map(line, unsettled_cache())))
    place.bench.write(numbered(9))
    code, shown = on_terminal(place.bench, "--retry-error", typed="y\n")
    assert code == 0, shown
    assert "(y/N)" in shown
    assert place.asked() == {4: 1, 5: 1, 6: 1, 7: 1, 8: 1}
    assert sorted(record["index"] for record in read_records(place.bench.cache)) == list(range(9))
    records = read_records(place.bench.result)
    assert [record["index"] for record in records] == list(range(9))
    assert [record["answer"] for record in records[4:]] == ["B"] * 5
    assert records[:4] == unsettled_cache()[:4]


# --- killed and resumed


def test_killed_in_the_middle_and_resumed_nothing_is_lost_doubled_or_asked_again(place: Place) -> None:
    count = 40
    place.server.script.default_delay_s = 0.05
    place.bench.write(numbered(count))
    dice = random.Random(20)
    recorded: set[int] = set()
    for stage in (dice.randint(4, 12), dice.randint(16, 28)):
        process = place.bench.start("--max-concurrent", "3")
        wait_until(lambda: len(read_whole_lines(place.bench.cache)) >= stage)  # noqa: B023  called before it changes
        time.sleep(dice.uniform(0, 0.1))
        kill_group(process)
        process.communicate()
        recorded = {record["index"] for record in read_whole_lines(place.bench.cache)}
        assert stage <= len(recorded) < count
        asked_before = place.asked()
    with place.bench.cache.open("ab") as cache:
        cache.write(line(old_record(39)).encode()[:57])
    run = place.bench.run("--max-concurrent", "3")
    check_whole(run, count)
    for index, times in place.asked().items():
        assert times <= 3, "each kill costs at most the samples that were at work"
        if index in recorded:
            assert times == asked_before[index], "what was recorded is not asked again"
    assert all(record["answer"] == "B" for record in run.records())
    assert sum(place.asked().values()) <= count + 2 * 3
    assert f"{count}/{count} = 100.0000%" in run.stdout
    assert records_in(run.cache) == set(range(count)), "the cache can be loaded again, whole"


# --- two runs at a time


def test_a_second_run_on_a_cache_in_use_is_refused_and_the_earlier_result_stays_whole(place: Place) -> None:
    place.server.script.replies = lambda key: [{"text": ANSWER, "delay_s": 300 if key == "question 2" else 0}]
    place.bench.write(numbered(4))
    place.bench.output_dir.mkdir(parents=True)
    place.bench.result.write_text("an earlier result\n", encoding="utf-8")
    process = place.bench.start("--max-concurrent", "1")
    wait_until(lambda: len(read_whole_lines(place.bench.cache)) == 2)
    second = place.bench.run()
    kill_group(process)
    process.communicate()
    assert second.code not in (0, None), "two runs on one cache would ask everything twice"
    assert "Traceback" not in second.stderr
    assert str(place.bench.cache) in second.stderr
    assert str(process.pid) in second.stderr, "it says who holds the cache"
    assert place.bench.result.read_text(encoding="utf-8") == "an earlier result\n"
    assert place.asked() == {0: 1, 1: 1, 2: 1}
