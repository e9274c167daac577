"""Cache, resume, confirmations and result of eval-eva.py as a process."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import select
import signal
import subprocess
import threading
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
    read_whole_lines,
    row,
    send_signals,
    wait_until,
    write_rows,
)
from scripted_server import Script, ScriptedServer

from eva.dataset.items import load_items
from eva.records.cache import CacheError, open_cache
from eva.records.own_file import OwnFile
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


def test_a_whole_cache_needs_no_server_and_first_says_whose_records_it_has(place: Place) -> None:
    place.bench.write(numbered(3))
    check_whole(place.bench.run(), 3)
    again = place.bench.run("--retry-error", "--yes", base_url="http://127.0.0.1:9/v1")
    check_whole(again, 3)
    first = again.stderr.splitlines()[0]
    started = json.loads(again.cache.with_suffix(".meta.json").read_text())["started"][0]
    assert f"all 3 done in {again.cache} (model scripted-eva, {started[:10]})" in first
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
    ("said", "code", "records"),
    [(b"y\n", 0, 2), (b"Y", 0, 2), (b"n\n", 1, 1), (b"\xff\n", 1, 1), (b"yes please\n", 1, 1), (b"", 2, 1)],
)
@pytest.mark.parametrize("flag", ["--new-cache", "--retry"])
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


COUNT = 12


@dataclass(frozen=True)
class Touched:
    """A run whose cache another program touched after some records; `before` holds its lines up to then."""

    run: Run
    before: list[dict[str, Any]]
    rescued: Path

    def check_ended(self, *said: str) -> None:
        assert self.run.code == 1, self.run.said
        assert "Traceback" not in self.run.stderr
        assert all(text in self.run.stderr for text in (str(self.run.cache), *said)), self.run.stderr
        assert "to go on:" in self.run.stderr
        assert "Accuracy" not in self.run.stdout, "no figures of records that are not there"
        assert not self.run.result.exists()
        assert not self.run.result.with_suffix(".meta.json").exists()


def touched(place: Place, touch: Callable[[Path], object], *, interrupt: bool = False) -> Touched:
    """A run of COUNT samples. The fifth is answered once `touch` was done to the cache, or never, but interrupted."""
    before: list[dict[str, Any]] = []
    place.bench.write(numbered(COUNT))

    def replies(key: str) -> list[Any]:
        if key != "question 4":
            return [ANSWER]
        before.extend(read_records(place.bench.cache))
        touch(place.bench.cache)
        if interrupt:  # the first one gives the sample under way its grace, the second none
            send_signals(signal.SIGINT, signal.SIGINT)
        return [{"text": ANSWER, "delay_s": 300 if interrupt else 0}]

    place.server.script.replies = replies
    run = place.bench.run("--max-concurrent", "1")
    return Touched(run, before, place.bench.output_dir / "cache_own.jsonl.rescued")


def change_an_answer(cache: Path) -> None:
    """In place, to a file of the same size."""
    with cache.open("r+b") as file:
        changed = file.read().replace(b'"answer": "B"', b'"answer": "A"', 1)
        file.seek(0)
        file.write(changed)


@pytest.mark.parametrize(
    ("touch", "said", "kept"),
    [
        (Path.exists, "", True),
        (Path.unlink, "deleted", True),
        (lambda path: path.with_suffix(".other").replace(path), "replaced", True),
        (lambda path: os.truncate(path, 5), "changed", False),
    ],
    ids=["not at all", "deleted", "replaced", "cut"],
)
def test_a_file_knows_how_another_program_touched_it_and_which_of_its_lines_are_whole(
    tmp_path: Path, touch: Callable[[Path], object], said: str, kept: bool
) -> None:
    write_rows(tmp_path / "own.other", [{"answer": "A"}])
    own, record = OwnFile(tmp_path / "own.jsonl"), line({"answer": "B"}).encode()
    span = own.append(record)
    touch(own.path)
    assert (said in own.foreign_change(), bool(own.foreign_change())) == (True, bool(said))
    assert own.read(span) == (record if kept else None)
    own.close()


def go_on(place: Place, rescued: Path) -> Run:
    """What the message says: the rescued records take the cache's place, and the same command goes on."""
    rescued.replace(place.bench.cache)
    run = place.bench.run()
    check_whole(run, COUNT)
    return run


def test_a_cache_deleted_in_mid_run_ends_the_run_and_every_record_is_rescued(place: Place) -> None:
    case = touched(place, Path.unlink)
    case.check_ended("was deleted or moved", f"5 of the 5 records of this run are in {case.rescued}")
    assert not case.run.cache.exists()
    rescued = read_records(case.rescued)
    assert rescued[:4] == case.before
    assert [record["index"] for record in rescued] == list(range(5)), "the one that found it out is there too"
    go_on(place, case.rescued)
    assert set(place.asked().values()) == {1}, "nothing is asked again"


def test_a_cache_replaced_in_mid_run_is_left_alone_and_every_record_is_rescued(place: Place) -> None:
    other = place.bench.folder / "other.jsonl"
    other.write_text(line(old_record(0)) + line(old_record(1)), encoding="utf-8")
    theirs = other.read_bytes()
    case = touched(place, other.replace)
    case.check_ended(f"another program put a file of {len(theirs)} bytes there", str(case.rescued))
    assert case.run.cache.read_bytes() == theirs
    assert read_records(case.rescued)[:4] == case.before
    go_on(place, case.rescued)
    assert set(place.asked().values()) == {1}


@pytest.mark.parametrize(("size", "kept"), [(0, 0), (None, 2)], ids=["to nothing", "in the middle"])
def test_a_cache_truncated_in_mid_run_ends_the_run_with_what_is_left_of_it(
    place: Place, size: int | None, kept: int
) -> None:
    def truncate(cache: Path) -> None:
        lines = cache.read_bytes().splitlines(keepends=True)
        os.truncate(cache, len(lines[0] + lines[1]) + 30 if size is None else size)

    case = touched(place, truncate)
    case.check_ended("was changed by another program", f"{kept + 1} of the 5 records", str(case.rescued))
    assert [record["index"] for record in read_records(case.rescued)] == [*range(kept), 4]
    go_on(place, case.rescued)
    assert {index for index, times in place.asked().items() if times == 2} == set(range(kept, 4)), "only what is lost"


@pytest.mark.parametrize("theirs", [line(old_record(1, answer="A")), '{"index": 9, "vid'], ids=["a line", "half"])
def test_a_foreign_line_in_the_cache_ends_the_run_and_stays_out_of_the_result(place: Place, theirs: str) -> None:
    def append(cache: Path) -> None:
        with cache.open("a", encoding="utf-8") as file:
            file.write(theirs)

    case = touched(place, append)
    case.check_ended("was changed by another program", f"5 of the 5 records of this run are in {case.rescued}")
    assert case.run.cache.read_text(encoding="utf-8").endswith(theirs), "it is there to be looked at"
    assert read_records(case.rescued)[:4] == case.before
    run = go_on(place, case.rescued)
    assert run.by_index()[1]["answer"] == "B"


def test_a_cache_deleted_after_the_last_record_gives_no_result(place: Place) -> None:
    """The run is interrupted, so that nothing is appended any more: the merge finds it out."""
    case = touched(place, Path.unlink, interrupt=True)
    case.check_ended("4 of the 4 records", str(case.rescued))
    assert read_records(case.rescued) == case.before


def test_where_nothing_is_left_of_a_cache_no_empty_file_passes_for_its_records(place: Place) -> None:
    case = touched(place, lambda cache: os.truncate(cache, 0), interrupt=True)
    case.check_ended("none of its records can be read any more")
    assert not case.rescued.exists()


def test_records_rescued_before_are_not_overwritten(place: Place) -> None:
    place.bench.output_dir.mkdir(parents=True)
    earlier = place.bench.output_dir / "cache_own.jsonl.rescued"
    earlier.write_text("earlier", encoding="utf-8")
    case = touched(place, Path.unlink)
    case.check_ended(f"{earlier}1")
    assert earlier.read_text(encoding="utf-8") == "earlier"


def test_of_two_runs_on_one_cache_whose_lock_was_deleted_one_ends_and_nothing_is_lost(place: Place) -> None:
    """Both ask the second question. The run that finds the other one's line ends; that one goes on alone."""
    both = threading.Barrier(2)

    def replies(key: str) -> list[Any]:
        if key == "question 1":
            both.wait(60)
        return [ANSWER]

    place.server.script.replies = replies
    place.bench.write(numbered(COUNT))
    first = place.bench.start("--max-concurrent", "1")
    wait_until(lambda: len(read_whole_lines(place.bench.cache)) == 1)
    (place.bench.output_dir / ".cache_own.jsonl.lock").unlink()
    runs = [place.bench.run("--max-concurrent", "1"), place.bench.finish(first)]
    assert "was changed by another program" in "".join(run.stderr for run in runs)
    assert 1 in {run.code for run in runs}
    assert records_in(place.bench.cache) >= {0, 1}
    place.server.script.replies = lambda key: [ANSWER]
    again = place.bench.run()
    check_whole(again, COUNT)
    assert {record["answer"] for record in again.records()} == {"B"}


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
