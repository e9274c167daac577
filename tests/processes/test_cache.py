"""Cache, resume, confirmations and result of eval-eva.py."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import (
    Bench,
    Run,
    environment,
    kill_group,
    make_video,
    only_sentence,
    read_records,
    row,
    send_signals,
    write_rows,
)
from scripted_server import Script, ScriptedServer

from eva.dataset.items import load_items
from eva.records.cache import Cache, CacheError, CacheLostError, open_cache
from eva.records.schema import read_record
from eva.run.evaluate import find_outdated
from eva.run.options import Options

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
        with contextlib.suppress(ValueError, RecursionError):
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
        f'{{"index": 3, "answer": "B", "more": {"[" * 980}{"]" * 980}}}\n',
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
    assert all(f"line {number}" in run.stderr for number in (2, 9)), "a line that is not JSON is skipped with a warning"
    assert "2/6 = 33.33%" in run.stdout, "the items of the run are the denominator"
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


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--temperature", "0.7"), "temperature: None then, 0.7 now"),
        (("--model", "other"), "model: 'scripted-eva' then, 'other' now"),
        (("--max-turns", "3", "-v", "300"), "max_turns: 6 then, 3 now"),
        (("--agent", "blind", "--sample", "2"), "agent: None then, 'blind' now"),
        (("--max-turns", "3", "--retry-error", "--yes"), "max_turns: 6 then, 3 now"),
    ],
)
def test_a_whole_cache_has_no_accuracy_for_other_settings(place: Place, flags: tuple[str, ...], named: str) -> None:
    place.bench.write(numbered(3))
    check_whole(place.bench.run(), 3)
    place.server.script.models = ("scripted-eva", "other")
    kept = place.bench.cache.read_bytes(), place.bench.cache.with_suffix(".meta.json").read_bytes()
    refused = place.bench.run(*flags)
    assert refused.code == 2, refused.said
    assert named in refused.stderr
    assert "100" not in refused.stdout
    assert (place.bench.cache.read_bytes(), place.bench.cache.with_suffix(".meta.json").read_bytes()) == kept
    forced = place.bench.run(*flags, "--force")
    assert forced.code == 0, forced.said
    assert place.asked() == {0: 1, 1: 1, 2: 1}


def test_a_whole_cache_needs_no_server_and_says_whose_records_it_has(place: Place) -> None:
    place.bench.write(numbered(3))
    check_whole(place.bench.run(), 3)
    again = place.bench.run("--retry-error", "--yes", base_url="http://127.0.0.1:9/v1")
    check_whole(again, 3)
    assert f"all 3 done in {again.cache} (model scripted-eva" in again.stderr
    refused = place.bench.run("--max-turns", "3", base_url="http://127.0.0.1:9/v1")
    assert refused.code == 2, refused.said


def test_a_whole_cache_is_compared_with_the_model_that_is_served_now(place: Place) -> None:
    place.bench.write(numbered(1))
    check_whole(place.bench.run(), 1)
    place.server.script.models = ("another-model",)
    refused = place.bench.run()
    assert refused.code == 2, refused.said
    assert "model: 'scripted-eva' then, 'another-model' now" in refused.stderr


# --- --retry-error and --new-cache


def unsettled_cache() -> list[dict[str, Any]]:
    settled = [old_record(n, stop_reason=reason) for n, reason in enumerate(SETTLED)]
    unsettled = [old_record(4 + n, stop_reason=reason) for n, reason in enumerate(UNSETTLED)]
    return [*settled, *unsettled, old_record(8, error="an error beside an answer")]


def test_a_retry_replaces_the_unsettled_records_of_the_chosen_questions_and_a_new_cache_all(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "cache_x.jsonl", unsettled_cache())
    items = load_items(write_rows(tmp_path / "questions.jsonl", numbered(9)))
    with open_cache(path) as cache:
        assert find_outdated(cache, items[:6], Options("x")) == set()
        assert find_outdated(cache, items[:6], Options("x", retry_error=True)) == {4, 5}
        assert find_outdated(cache, items, Options("x", retry_error=True)) == {4, 5, 6, 7, 8}
        assert find_outdated(cache, items[:6], Options("x", new_cache=True)) == set(range(9))


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


@pytest.mark.parametrize(
    ("flag", "said", "code", "records"),
    [
        ("--new-cache", b"y\n", 0, 2), ("--retry-error", b"Y", 0, 2), ("--new-cache", b"n\n", 1, 1),
        ("--retry-error", b"\xff\n", 1, 1), ("--new-cache", b"yes please\n", 1, 1), ("--retry-error", b"", 2, 1),
    ],
)  # fmt: skip
def test_an_answer_that_is_piped_in_counts(place: Place, flag: str, said: bytes, code: int, records: int) -> None:
    before = line(old_record(1, stop_reason="exception"))
    place.cache(before)
    place.bench.write(numbered(2))
    done = place.bench.run(flag, typed=said)
    assert done.code == code, done.said
    assert ("--yes" in done.stderr) == (not said)
    assert len(read_records(place.bench.cache)) == records
    assert code == 0 or place.bench.cache.read_text(encoding="utf-8") == before


# --- two runs at a time


def test_a_run_on_a_cache_in_use_is_refused_and_the_earlier_result_stays_whole(place: Place) -> None:
    place.bench.write(numbered(4))
    place.cache(line(old_record(0)))
    place.bench.result.write_text("an earlier result\n", encoding="utf-8")
    with open_cache(place.bench.cache):
        second = place.bench.run()
    assert second.code == 2, "two runs on one cache would ask everything twice"
    said = only_sentence(second.stderr)
    assert str(place.bench.cache) in said
    assert str(os.getpid()) in said, "it says who holds the cache"
    assert place.bench.result.read_text(encoding="utf-8") == "an earlier result\n"
    assert place.asked() == {}


# --- another program touches the cache while the run goes on


def cut(path: Path) -> None:
    """To one record and a half."""
    first, second, *_ = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, len(first + second) - 9)


def replace_by_another(path: Path) -> None:
    write_rows(path.with_suffix(".other"), [old_record(7)]).replace(path)


def add_a_line(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line(old_record(1, answer="C")))


TOUCHES: dict[Callable[[Path], object], list[int]] = {
    Path.unlink: [0, 1, 2], replace_by_another: [0, 1, 2], add_a_line: [0, 1, 2], cut: [0],
    lambda path: os.truncate(path, 0): [],
}  # fmt: skip


@pytest.mark.parametrize("change", [lambda cache: cache.append(read_record(old_record(3))), Cache.merge, Cache.drop])
@pytest.mark.parametrize("touch", TOUCHES)
def test_what_is_left_of_a_cache_that_another_program_touched_is_saved_elsewhere(
    tmp_path: Path, touch: Callable[[Path], object], change: Callable[..., object]
) -> None:
    path, earlier = tmp_path / "cache_x.jsonl", tmp_path / "cache_x.jsonl.rescued"
    earlier.write_text("earlier", encoding="utf-8")
    appends = change not in (Cache.merge, Cache.drop)
    with open_cache(path) as cache:
        for index in range(3):
            cache.append(read_record(old_record(index)))
        touch(path)
        left = path.read_bytes() if path.exists() else None
        with pytest.raises(CacheLostError, match=rf"{earlier}1"):
            change(cache, *(() if appends else [tmp_path / "result.jsonl"] if change == Cache.merge else [{1}]))
        with pytest.raises(CacheLostError, match=rf"{earlier}1"):
            cache.merge(tmp_path / "result.jsonl")
    assert (path.read_bytes() if path.exists() else None) == left, "it is there to be looked at"
    kept = [old_record(index) for index in [*TOUCHES[touch], *([3] if appends else [])]]
    assert (read_records(tmp_path / "cache_x.jsonl.rescued1"), earlier.read_text()) == (kept, "earlier")
    assert not (tmp_path / "result.jsonl").exists()


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_cache_deleted_in_mid_run_ends_the_run_and_nothing_is_asked_again(place: Place, interrupt: bool) -> None:
    """Where it is interrupted, nothing is appended any more: the merge finds it out."""

    def replies(key: str) -> list[Any]:
        if key == "question 4" and place.bench.cache.exists():
            place.bench.cache.unlink()
            if interrupt:  # the first one gives the sample under way its grace, the second none
                send_signals(signal.SIGINT, signal.SIGINT)
                return [{"text": ANSWER, "delay_s": 300}]
        return [ANSWER]

    place.server.script.replies = replies
    place.bench.write(numbered(6))
    run = place.bench.run("--max-concurrent", "1")
    assert run.code == 1, run.said
    assert "to go on:" in run.stderr
    assert "Accuracy" not in run.stdout, "no figures of records that are not there"
    assert not run.result.exists()
    assert not run.result.with_suffix(".meta.json").exists()
    rescued = run.cache.with_name("cache_own.jsonl.rescued")
    assert [record["index"] for record in read_records(rescued)] == list(range(4 if interrupt else 5))
    rescued.replace(run.cache)
    place.server.script.replies = lambda key: [ANSWER]
    check_whole(place.bench.run(), 6)
    asked = place.asked()
    assert {asked[index] for index in (0, 1, 2, 3, 5)} == {1}


# --- a record that cannot be written


def test_a_record_that_does_not_reach_the_disk_leaves_the_cache_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No half line and no line that is not known, so that the run's result is what its cache says."""
    with open_cache(tmp_path / "cache_x.jsonl") as cache:
        cache.append(read_record(old_record(0)))
        before = cache.path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail_to_sync)
            with pytest.raises(CacheError, match=r"cannot write to the cache .*cache_x\.jsonl: Input/output error"):
                cache.append(read_record(old_record(1)))
        assert cache.path.read_bytes() == before
        assert set(cache.outcomes) == {0}
        cache.append(read_record(old_record(2)))
        cache.merge(tmp_path / "result_x.jsonl")
    assert [record["index"] for record in read_records(tmp_path / "result_x.jsonl")] == [0, 2]


def fail_to_sync(fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
