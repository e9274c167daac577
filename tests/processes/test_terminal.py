"""What a person at a terminal of 80 columns sees of a run."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, Bench, make_video, row
from killable import KillableServer, killable
from pseudo_terminal import CTRL_C, terminal
from scripted_server import Script, ScriptedServer

from eva.commands.run import bar, logged_to_terminal
from eva.records.schema import read_record

RIGHT, WRONG = "<answer>B</answer>", "<answer>A</answer>"


def test_an_outage_is_a_line_when_it_begins_and_one_when_it_ends(
    bench_at: Callable[..., Bench], tmp_path: Path
) -> None:
    replies: dict[str, Any] = {"*": [{"text": RIGHT, "delay_s": 0.2}]}
    server = KillableServer(tmp_path / "server", {"replies": replies})
    with killable(server):
        bench = bench_at(server.base_url, samples=40)
        with terminal(bench.command("--max-concurrent", "2", "--outage-timeout", "100"), bench.folder) as screen:
            screen.read_until("100.0 % right")
            server.kill()
            screen.read_until("within 100 s (--outage-timeout)")
            server.start()
            assert screen.finish() == 0, screen.text
    flowing = screen.text.replace("\r\n", "")
    assert len(re.findall("waiting for http", flowing)) == 1
    assert len(re.findall("all servers answer again", flowing)) == 1
    bars = [line for line in screen.lines() if re.match(r"own \d+/40", line)]
    assert bars[-1].startswith("own 40/40, 100.0 % right |")
    assert all(len(bar) <= 80 for bar in bars)


def test_the_first_ctrl_c_says_at_once_what_still_runs_and_the_second_ends_it(
    bench_at: Callable[..., Bench],
) -> None:
    slow = {"text": RIGHT, "delay_s": 60}
    with ScriptedServer(Script(lambda key: [slow if int(key.split()[1]) > 2 else RIGHT])) as server:
        bench = bench_at(server.base_url, samples=9)
        with terminal(bench.command("--max-concurrent", "3"), bench.folder) as screen:
            screen.read_until("own 3/9")
            screen.press(CTRL_C)
            text = screen.read_until("What has finished is saved.", timeout_s=5)
            assert "The 3 running samples may finish for up to 60 s (--grace)" in text.replace("\r\n", "")
            screen.press(CTRL_C)
            screen.read_until("SIGINT again: the 3 running samples end now", timeout_s=5)
            assert screen.finish(timeout_s=20) == 130, screen.text
    assert len(bench.cache.read_text(encoding="utf-8").splitlines()) == 3


def test_the_summary_fits_the_screen_and_begins_with_what_counts(bench_at: Callable[..., Bench]) -> None:
    with ScriptedServer(Script(lambda key: [RIGHT])) as server:
        bench = bench_at(server.base_url)
        bench.output_dir.mkdir()
        for number in range(4):
            make_video(bench.videos / f"{number}.mp4")
        bench.write(row(f"q{number}", video=f"{number}.mp4") for number in range(4))
        with terminal(bench.command(output_dir="."), bench.output_dir) as screen:
            assert screen.finish() == 0, screen.text
    lines = screen.text.replace("\r", "").split("\n")
    begin = lines.index("Accuracy:      4/4 = 100.00%")
    assert lines[begin + 1 : begin + 5] == [
        "95 % interval: none, fewer than 10 videos",
        "Chance:        50.00%",
        "Failures:      none",
        "",
    ]
    assert all(len(line) <= 80 for line in lines[begin:]), lines[begin:]
    assert lines[-3:-1] == ["", "Result: result_own.jsonl"]
    shutil.copy(ROOT / ".gitignore", bench.output_dir)
    subprocess.run(["git", "init", "--quiet"], cwd=bench.output_dir, check=True)
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    left = subprocess.run(status, cwd=bench.output_dir, check=True, capture_output=True, text=True).stdout
    assert left == "?? .gitignore\n", "git shows nothing that a run leaves in its folder"


# --- the bar and the lines above it, where there is no terminal


def test_lines_of_the_package_go_to_standard_error_with_the_commands_name(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("eva.run")
    with logged_to_terminal("eval-eva.py"):
        log.info("a video called %s", "\x1b[2J\nx")
    log.warning("unheard")
    assert capsys.readouterr() == ("", "eval-eva.py: a video called \ufffd[2J x\n")


def test_the_bar_counts_what_is_right_and_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    right = {"gt": "B", "answer": "B", "stop_reason": "answer_found", "num_rounds": 1, "total_tokens": 9}
    failed = {**right, "answer": "", "stop_reason": "exception", "failure": "infrastructure", "schema": 1}
    one, other = (read_record({"index": index, **fields}).outcome for index, fields in enumerate((right, failed)))
    with bar("own", 4, [one]) as count:
        count(other)
    assert capsys.readouterr().err.split("\r")[-1].startswith("own 2/4, 50.0 % right, 1 failed |")
