"""The Python interface: in this process, in any thread and any loop, against a server over real sockets."""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import (
    ROOT,
    block,
    call,
    environment,
    make_video,
    read_records,
    read_whole_lines,
    row,
    wait_until,
    write_rows,
)
from scripted_server import Script, ScriptedServer

import eva
from eva.run.options import Options

ANSWER = "<answer>B</answer>"
LOOK = block(call(0, 5, 4))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Script({"*": [LOOK, ANSWER]})) as server:
        yield server


@pytest.fixture
def own(tmp_path: Path, server: ScriptedServer) -> dict[str, Any]:
    """The settings of a run of six questions."""
    make_video(tmp_path / "videos" / "clip.mp4")
    make_video(tmp_path / "videos" / "other.mp4")
    rows = [row(f"q{n}", index=n, video=("clip.mp4", "other.mp4")[n % 2], truth="BA"[n == 5]) for n in range(6)]
    return {
        "dataset": "own",
        "jsonl": write_rows(tmp_path / "own.jsonl", rows),
        "video_root": tmp_path / "videos",
        "base_url": server.base_url,
        "tokenizer": "none",
        "frame_root": tmp_path / "frames",
        "output_dir": tmp_path / "out",
        "frame_workers": 1,
    }


def test_a_run_gives_its_result_and_prints_nothing(
    own: dict[str, Any], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "eva")
    result = eva.evaluate(**own)
    assert result.accuracy == 5 / 6
    assert result.interval is None, "on few videos"
    assert [record.index for record in result.records] == list(range(6))
    assert result.failures == ()
    assert result.path == own["output_dir"] / "result_own.jsonl"
    assert any("6 to go" in line for line in caplog.messages)
    assert capfd.readouterr() == ("", "")


def test_a_second_call_asks_nothing_and_a_part_is_scored_alone(own: dict[str, Any], server: ScriptedServer) -> None:
    eva.evaluate(**own)
    asked = len(server.journal.seen)
    part = eva.evaluate(**own, ids=[4, 5])
    assert (part.accuracy, len(part.records)) == (0.5, 2)
    assert len(server.journal.seen) == asked
    whole = eva.load_result(part.path)
    assert whole.accuracy == 5 / 6
    assert whole.compare(whole).right_only_in_a == ()


def test_in_a_running_loop_evaluate_names_the_coroutine(own: dict[str, Any]) -> None:
    async def notebook() -> float | None:
        with pytest.raises(RuntimeError, match="evaluate_async"):
            eva.evaluate(**own)
        return (await eva.evaluate_async(**own)).accuracy

    assert asyncio.run(notebook()) == 5 / 6


def test_two_runs_at_a_time_in_threads_of_a_program_share_a_frame_root(own: dict[str, Any]) -> None:
    found: dict[str, eva.Result] = {}

    def run(name: str) -> None:
        found[name] = eva.evaluate(**{**own, "output_dir": own["output_dir"] / name})

    async def program() -> None:
        """It has a loop of its own, which goes on."""
        await asyncio.gather(asyncio.to_thread(run, "a"), asyncio.to_thread(run, "b"))

    asyncio.run(program())
    assert {name: one.accuracy for name, one in found.items()} == {"a": 5 / 6, "b": 5 / 6}
    assert not any(
        round_.calls[0].error for one in found.values() for record in one.records for round_ in record.rounds[:1]
    )


def test_a_cancelled_run_keeps_what_finished_and_goes_on(own: dict[str, Any], server: ScriptedServer) -> None:
    def replies(key: str) -> list[Any]:
        return [LOOK, {"text": ANSWER, "delay_s": 0 if key in ("q0", "q2", "q4") else 5}]

    server.script.replies = replies

    async def cancel_in_mid_run() -> None:
        running = asyncio.ensure_future(eva.evaluate_async(**own, max_concurrent=3))
        await asyncio.to_thread(wait_until, lambda: len(read_whole_lines(own["output_dir"] / "cache_own.jsonl")) == 3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(cancel_in_mid_run(), 60))
    partial = eva.load_result(own["output_dir"] / "result_own.jsonl")
    assert partial.accuracy is None
    assert [record.index for record in partial.records] == [0, 2, 4]
    server.script.replies = lambda key: [LOOK, ANSWER]
    assert eva.evaluate(**own).accuracy == 5 / 6
    assert len(read_records(own["output_dir"] / "cache_own.jsonl")) == 6


def test_a_failed_sample_is_returned_and_what_ends_a_run_is_raised(own: dict[str, Any]) -> None:
    (own["video_root"] / "other.mp4").unlink()
    result = eva.evaluate(**own)
    assert {(one.index, one.failure) for one in result.failures} == {(1, "sample"), (3, "sample"), (5, "sample")}
    with pytest.raises(eva.EvaError, match="other settings"):
        eva.evaluate(**own, max_turns=2)
    with pytest.raises(eva.EvaError, match="max_turns"):
        eva.evaluate(**own, max_turns=0)
    with pytest.raises(TypeError, match="max_turnz"):
        eva.evaluate(**{**own, "max_turnz": 2})


def test_every_setting_can_be_given_as_the_text_of_its_flag() -> None:
    texts: dict[str, Any] = {
        "ids": "3,5-6", "base_url": "http://a:1-2/v1", "sample": "4", "header": {"A": "b"},
        "data_parallel_ranks": "auto",
        "output_dir": "out", "extra_body": '{"top_k": 1}', "frame_timeout": "1.5",
    }  # fmt: skip
    as_text = Options("own", **texts)
    assert as_text.ids == {3, 5, 6}
    assert as_text.base_url == ("http://a:1/v1", "http://a:2/v1")
    assert (as_text.sample, as_text.frame_timeout, as_text.output_dir) == (4, 1.5, Path("out"))
    assert as_text.header == (("A", "b"),)
    assert as_text.data_parallel_ranks is None
    assert as_text.extra_body == {"top_k": 1}


def test_the_page_shows_code_that_runs(
    own: dict[str, Any], server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_bytes(own["jsonl"].read_bytes())
    first, second = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.S)
    eva.evaluate(**{**own, "dataset": "mine", "output_dir": "runs/step-0"})
    names: dict[str, Any] = {"url": server.base_url}
    exec(compile(first, "python.md", "exec"), names)  # noqa: S102
    assert names["result"].accuracy == 5 / 6
    cell = compile(second, "python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    asyncio.run(eval(cell, names))  # noqa: S307
    assert names["result"].accuracy == 5 / 6


def test_importing_the_package_is_cheap() -> None:
    timed = "import time; start = time.process_time(); import eva; print(time.process_time() - start)"
    done = subprocess.run(
        [sys.executable, "-c", timed], cwd=ROOT, capture_output=True, text=True, env=environment(), check=True
    )
    assert float(done.stdout) < 0.1


def test_runs_leave_no_process_and_no_connection_behind(own: dict[str, Any]) -> None:
    def held() -> tuple[int, int]:
        children = [file.read_text().split() for file in Path("/proc/self/task").glob("*/children")]
        return sum(map(len, children)), len(list(Path("/proc/self/fd").iterdir()))

    eva.evaluate(**own)
    before = held()
    for number in range(3):
        eva.evaluate(**{**own, "output_dir": own["output_dir"] / str(number)})
        eva.evaluate(**{**own, "output_dir": own["output_dir"] / str(number)})  # nothing to do
    with pytest.raises(eva.EvaError, match="no video folder"):
        eva.evaluate(**{**own, "video_root": own["video_root"] / "none", "output_dir": own["output_dir"] / "none"})
    processes, files = held()
    assert processes <= before[0]
    assert files <= before[1]


class Ours(eva.Agent):
    """An agent that a program makes itself."""

    settings = eva.AgentSettings(max_turns=1)

    def __init__(self, letter: str) -> None:
        self.letter = letter

    async def run(self, s: Any) -> eva.Answer:
        s.messages = [{"role": "user", "content": s.task.question}]
        await s.complete()
        return eva.Answer(self.letter)


def test_an_agent_of_the_program_plays_and_its_values_keep_caches_apart(own: dict[str, Any]) -> None:
    result = eva.evaluate(**own, agent=Ours("B"))
    assert {(record.answer, record.agent.rpartition(":")[2]) for record in result.records} == {("B", "Ours")}
    with pytest.raises(eva.EvaError, match="agent_args"):
        eva.evaluate(**own, agent=Ours("A"))
