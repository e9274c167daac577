"""A run that was interrupted, and one that was to ask a part: every tool says the same of each, and none an accuracy
that it does not have."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import (
    Bench,
    Run,
    beside,
    called,
    make_video,
    read_whole_lines,
    row,
    send_signals,
    wait_until,
)
from scripted_server import Script, ScriptedServer

from eva.commands.run import exit_code
from eva.run.evaluate import Host, evaluate
from eva.run.settings import choose_dataset
from eva.run.summary import summarize
from eva.scoring.result_file import Coverage

RIGHT, WRONG = "<answer>B</answer>", "<answer>A</answer>"
COUNT = 30
FAST = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "clip.mp4", frames=10)


@pytest.fixture
def bench_at(tmp_path: Path, tokenizer_dir: Path, clip: Path) -> Callable[[str], Bench]:
    def make(base_url: str) -> Bench:
        bench = Bench(tmp_path, base_url, tokenizer_dir)
        for number in range(3):
            (bench.videos / f"clip{number}.mp4").symlink_to(clip)
        bench.write([row(f"question {n}", video=f"clip{min(n // 6, 2)}.mp4", category="cats") for n in range(COUNT)])
        return bench

    return make


def number_of(key: str) -> int:
    return int(key.split()[1])


def slow_at_last(key: str) -> list[Any]:
    """The questions on the first two videos are answered at once, the first of all wrongly; the others take an hour."""
    if number_of(key) < FAST:
        return [WRONG if number_of(key) == 0 else RIGHT]
    return [{"text": RIGHT, "delay_s": 3600}]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Script(slow_at_last)) as found:
        yield found


def interrupted(bench: Bench, *flags: str) -> Run:
    def interrupt() -> None:
        wait_until(lambda: len(read_whole_lines(bench.cache)) >= FAST)
        send_signals(signal.SIGINT)

    with beside(interrupt):
        run = bench.run("--max-concurrent", "3", "--grace", "1", *flags)
    assert run.code == 130, run.said
    return run


def tool(name: str, *arguments: object, code: int = 0) -> str:
    done = called(name, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def on_page(page: Path, block: str) -> Any:
    found = re.search(rf'id="data-{block}">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


SO_FAR = f"So far: {FAST - 1} of {FAST} answered are right; {COUNT - FAST} to go"
LOW, HIGH = (FAST - 1) / COUNT, (COUNT - 1) / COUNT
IN_THE_END = f"Accuracy in the end: from {LOW:.2%} if the rest were wrong, to {HIGH:.2%} if it were right"
PARTIAL = f"Partial: {FAST} of {COUNT} questions have a record"


def check_figures(content: dict[str, Any]) -> None:
    assert (content["partial"], content["to_go"], content["recorded"]) == (True, COUNT - FAST, FAST)
    assert (content["accuracy"], content["interval_95"]) == (None, None)
    assert content["accuracy_bounds"] == pytest.approx([LOW, HIGH])


def test_of_an_interrupted_run_every_tool_says_how_far_it_is_and_none_an_accuracy(
    bench_at: Callable[[str], Bench], server: ScriptedServer, tmp_path: Path
) -> None:
    bench = bench_at(server.base_url)
    run = interrupted(bench, "--json", str(tmp_path / "run.json"))
    assert run.stdout.splitlines()[:3] == [PARTIAL, SO_FAR, IN_THE_END]
    assert "95 %" not in run.stdout and "Accuracy:" not in run.stdout
    check_figures(json.loads((tmp_path / "run.json").read_text()))
    for path in (run.result, run.cache):
        lines = tool("accuracy.py", path, code=3).splitlines()
        assert lines[:3] == [PARTIAL, SO_FAR, IN_THE_END]
        assert not any("95 %" in line or line.startswith("Accuracy:") for line in lines)
        assert tool("accuracy.py", path, "--partial").splitlines() == lines
        check_figures(json.loads(tool("accuracy.py", path, "--json", code=3)))
    tool("report.py", run.result, "-o", tmp_path / "page.html")
    (head,) = on_page(tmp_path / "page.html", "heads")
    assert (head["so_far"], head["accuracy"], head["interval_95"]) == (SO_FAR, None, None)
    assert head["accuracy_bounds"] == pytest.approx([LOW, HIGH])
    assert PARTIAL in head["caveats"]
    assert "95 %" not in (tmp_path / "page.html").read_text().split("<script")[0], "the charts have no interval either"


def test_a_finished_run_of_a_chosen_part_is_complete_for_it(
    bench_at: Callable[[str], Bench], server: ScriptedServer, tmp_path: Path
) -> None:
    bench = bench_at(server.base_url)
    options = bench.options(sample=FAST)
    ended = asyncio.run(evaluate(choose_dataset(options, {}), options, Host()))
    assert (len(ended.items), len(ended.outcomes), ended.coverage) == (FAST, FAST, Coverage(FAST, 0, COUNT))
    assert exit_code(ended, 0) == 0
    complete = f"Complete for {FAST} of {COUNT} questions: the others were not chosen"
    lines = summarize(ended, tmp_path / "run.json")
    assert lines[0] == f"Accuracy:      {FAST - 1}/{FAST} = {(FAST - 1) / FAST:.2%}"
    assert lines[-2:] == [f"Result: {ended.result}", complete]
    assert json.loads((tmp_path / "run.json").read_text())["partial"] is False
    for path in (bench.result, bench.cache):
        said = tool("accuracy.py", path)
        assert said.splitlines()[1] == f"Accuracy: {FAST - 1}/{FAST} = {(FAST - 1) / FAST:.4%}"
        assert complete in said and "95 % interval" in said
        content = json.loads(tool("accuracy.py", path, "--json"))
        assert [content[name] for name in ("partial", "covered", "questions")] == [False, FAST, COUNT]
    tool("report.py", bench.result, "-o", tmp_path / "page.html")
    (head,) = on_page(tmp_path / "page.html", "heads")
    assert (head["so_far"], head["accuracy"]) == ("", (FAST - 1) / FAST)
    assert complete in head["caveats"]


def test_what_an_interrupted_run_was_to_ask_stays_to_go_after_a_smaller_one(
    bench_at: Callable[[str], Bench], server: ScriptedServer
) -> None:
    """Those of its questions that have a record came first, which is no choice that anybody made."""
    bench = bench_at(server.base_url)
    interrupted(bench)
    small = bench.run("--sample", "5")
    assert small.code == 0, small.said
    assert small.stdout.startswith("Accuracy:      4/5 = ")
    assert f"Result: {small.result} (of a partial run)" in small.stdout
    assert tool("accuracy.py", small.result, code=3).splitlines()[:2] == [PARTIAL, SO_FAR]
    server.script.replies = lambda key: [RIGHT]
    whole = bench.run()
    assert whole.code == 0, whole.said
    assert tool("accuracy.py", whole.result).startswith(f"Total entries: {COUNT}\n")


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--max-failed", "6"), 0), (("--max-failed", "5"), 3)])
def test_samples_of_a_missing_video_are_counted_at_the_end_and_allowed_unless_a_flag_says_how_many(
    bench_at: Callable[[str], Bench], server: ScriptedServer, flags: tuple[str, ...], code: int
) -> None:
    server.script.replies = lambda key: [RIGHT]
    bench = bench_at(server.base_url)
    (bench.videos / "clip1.mp4").unlink()
    run = bench.run(*flags)
    assert run.code == code, run.said
    assert "6 of 30 samples could not be played" in run.stderr.splitlines()[-1]


def test_a_run_whose_infrastructure_failed_some_samples_ends_with_3_and_says_what_mends_it(
    bench_at: Callable[[str], Bench], server: ScriptedServer
) -> None:
    def replies(key: str) -> list[Any]:
        # The others come later, so that a server that does answer them is known to be well.
        return [{"status": 500, "message": "broken"} if number_of(key) == 3 else {"text": RIGHT, "delay_s": 0.4}]

    server.script.replies = replies
    bench = bench_at(server.base_url)
    run = bench.run("--max-concurrent", "2")
    assert run.by_index()[3]["failure"] == "infrastructure"
    assert run.code == 3, run.said
    assert run.stdout.startswith(f"Accuracy:      {COUNT - 1}/{COUNT} = ")
    assert re.search(r"1 of 30 samples ended by failures of the infrastructure .*--retry-error", run.stderr)
    server.script.replies = lambda key: [RIGHT]
    again = bench.run("--max-concurrent", "2", "--retry-error", "--yes")
    assert again.code == 0, again.stderr
    assert again.stdout.startswith(f"Accuracy:      {COUNT}/{COUNT} = ")
