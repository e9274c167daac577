"""Whoever listens to a command, or stops listening, its files and its exit code are the same."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, Bench, environment, make_video, read_records, row
from scripted_server import Script, ScriptedServer

from eva.terminal import Outlet

ANSWER = "<answer>B</answer>"
FULL = Path("/dev/full")
# By what the shell calls them.
DEAF = {
    "standard error on a full disk": "2>/dev/full",
    "standard output on a full disk": ">/dev/full",
    "all closed": "<&- >&- 2>&-",
}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, which is always full")


def redirected(command: Sequence[str], redirection: str, **more: str) -> subprocess.CompletedProcess[str]:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
    return subprocess.run(
        shell,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(**more),
        timeout=120,
        check=False,
    )


@contextmanager
def pipe(*, read: bool) -> Iterator[int]:
    """A pipe to write to: nobody has it open for reading, or somebody who never reads, and it is full."""
    reader, writer = os.pipe()
    try:
        if read:
            os.set_blocking(writer, False)
            try:
                while True:
                    os.write(writer, b"x" * 4096)
            except BlockingIOError:
                os.set_blocking(writer, True)
        else:
            os.close(reader)
        yield writer
    finally:
        os.close(writer)
        if read:
            os.close(reader)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Script(lambda key: [ANSWER])) as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, tokenizer_dir: Path, server: ScriptedServer) -> Bench:
    """Two samples, one of which is spoken of on standard error: it has no video."""
    made = Bench(tmp_path / "café", server.base_url, tokenizer_dir)
    make_video(made.videos / "clip.mp4", frames=10)
    made.write([row("first"), row("second", video="missing.mp4")])
    return made


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    return tmp_path / "figures.json"


def check_files(bench: Bench, figures: Path) -> None:
    for path in (bench.cache, bench.result):
        records = sorted(read_records(path), key=lambda record: record["index"])
        assert [record["stop_reason"] for record in records] == ["answer_found", "exception"]
    content = json.loads(figures.read_text(encoding="utf-8"))
    assert (content["total"], content["correct"]) == (2, 1)
    assert json.loads(bench.result.with_suffix(".meta.json").read_text(encoding="utf-8"))["coverage"]["complete"]


@pytest.mark.parametrize("name", DEAF)
def test_a_run_ends_whole_where_nothing_can_be_printed(bench: Bench, figures: Path, name: str) -> None:
    said = redirected(bench.command("--json", str(figures)), DEAF[name])
    assert said.returncode == 0, said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    assert ("standard output could not be written: No space" in said.stderr) == (DEAF[name] == ">/dev/full")
    check_files(bench, figures)


def test_what_a_reader_does_not_take_in_time_is_dropped_and_the_last_error_is_kept() -> None:
    with pipe(read=True) as stuck, closing(Outlet(stuck, 0.05)) as outlet:
        assert (outlet.write(b"x" * 10), outlet.lost) == (10, None)
    with pipe(read=False) as gone, closing(Outlet(gone, None)) as outlet:
        assert (outlet.write(b"x"), type(outlet.lost)) == (1, BrokenPipeError)
    with FULL.open("wb") as full, closing(Outlet(full.fileno(), None)) as outlet:
        assert outlet.write(b"x") == 1
        assert outlet.lost is not None and outlet.lost.errno == errno.ENOSPC


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_run_ends_whole_where_the_reader_has_gone(bench: Bench, figures: Path, stream: str) -> None:
    with pipe(read=False) as gone:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: gone}
        run = subprocess.run(
            bench.command("--json", str(figures)), **streams, text=True, env=environment(), timeout=120, check=False
        )
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in (run.stdout or "") + (run.stderr or "")
    check_files(bench, figures)


def test_a_run_does_not_wait_for_a_reader_of_its_progress_who_has_stopped(bench: Bench, figures: Path) -> None:
    with pipe(read=True) as stuck:
        command = bench.command("--json", str(figures))
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=stuck, env=environment(), timeout=120, check=False)
    assert run.returncode == 0
    assert b"Result: " in run.stdout
    check_files(bench, figures)


def test_a_run_ends_whole_in_an_ascii_locale(bench: Bench, figures: Path) -> None:
    said = redirected(bench.command("--json", str(figures)), "", **ASCII)
    assert said.returncode == 0, said.stderr
    assert "Traceback" not in said.stderr
    assert "Accuracy:      1/2" in said.stdout
    check_files(bench, figures)


# --- the commands that show a result


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "result_é.jsonl"
    record = {
        "index": 0, "videos": ["a.mp4"], "messages": "", "gt": "A", "answer": "A", "stop_reason": "café",
        "num_rounds": 1, "total_tokens": 2, "estimated_visual_tokens": 3,
    }  # fmt: skip
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def accuracy(result: Path) -> list[str]:
    return [sys.executable, str(ROOT / "accuracy.py"), str(result)]


def report(result: Path) -> list[str]:
    return [sys.executable, str(ROOT / "report.py"), str(result), "-o", str(result.with_suffix(".html"))]


@pytest.mark.parametrize(
    ("command", "redirection"),
    [
        *((accuracy, redirection) for redirection in (">/dev/full", ">&-", "2>&-", "| true", ">/dev/full 2>&1")),
        (report, ">/dev/full 2>&1"),
    ],
)
def test_showing_a_result_never_ends_in_a_traceback(
    command: Callable[[Path], list[str]], redirection: str, result: Path
) -> None:
    said = redirected(command(result), redirection)
    assert said.returncode == 0, said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    assert command is accuracy or result.with_suffix(".html").stat().st_size > 10_000


@pytest.mark.parametrize("command", [accuracy, report])
def test_showing_a_result_works_in_an_ascii_locale(command: Callable[[Path], list[str]], result: Path) -> None:
    said = redirected(command(result), "", **ASCII)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    assert said.stdout.isascii()


def test_an_error_with_a_closed_standard_error_is_still_an_exit_code() -> None:
    assert redirected(accuracy(Path("/nowhere/result.jsonl")), "2>&-").returncode == 2
