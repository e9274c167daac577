"""Whole runs against a scripted server: each question asks for the whole video, then for a window of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))

from harness import Bench, block, call, row  # noqa: E402
from scripted_server import Script, ScriptedServer  # noqa: E402
from tokenizer import build_tokenizer  # noqa: E402

QUESTIONS_PER_VIDEO = 6
LENGTH_S = 180


def compare(video: Path, questions: int) -> None:
    """Print what a run costs with the baseline tool and with this one."""
    print("| frame tool | questions | wall s | items per minute | CPU s |\n|---|---|---|---|---|")
    for name, flags in (("baseline", ("--frame-tool", str(HERE / "baseline_tool.py"))), ("this one", ())):
        wall_s, cpu_s = run(video, questions, flags)
        print(f"| {name} | {questions} | {wall_s:.1f} | {60 * questions / wall_s:.1f} | {cpu_s:.1f} |", flush=True)


def run(video: Path, questions: int, flags: tuple[str, ...]) -> tuple[float, float]:
    """Wall and CPU seconds of one run, the harness and all that it starts included."""
    script = {f"q {number}": replies(number) for number in range(questions)}
    with tempfile.TemporaryDirectory() as name, ScriptedServer(Script(script)) as server:
        folder = Path(name)
        bench = Bench(folder, server.base_url, build_tokenizer(folder / "tokenizer"))
        for number in range(questions // QUESTIONS_PER_VIDEO):
            (bench.videos / f"{number}.mp4").symlink_to(video)
        bench.write(row(key, video=f"{number // QUESTIONS_PER_VIDEO}.mp4") for number, key in enumerate(script))
        bench.output_dir.mkdir()
        started = time.monotonic()
        process = subprocess.Popen(bench.command(*flags), cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - started
        records = bench.result.read_text().count('"answer_found"')
    if status or records != questions:
        raise SystemExit(f"the run ended with {records} answers of {questions}, status {status}")
    return wall_s, usage.ru_utime + usage.ru_stime


def replies(number: int) -> list[str]:
    start_s = 7 + 23 * number % (LENGTH_S - 30)
    return [block(call(0, LENGTH_S, 10)), block(call(start_s, start_s + 15, 8)), "<answer>B</answer>"]
