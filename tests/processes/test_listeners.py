"""Whoever stops listening to a command, its files and its exit code are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import ROOT, Bench, environment, make_video, read_records, row
from scripted_server import Script, ScriptedServer

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is always full")


def redirected(command: Sequence[str], redirection: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command in a shell whose exit code is that of the command. `GONE` is a reader that has gone."""
    script = f'set -o pipefail; "$@" {redirection}'
    if "GONE" in redirection:
        script = f"exec 9> >(true); wait $!; {script.replace('GONE', '&9')}"
    return subprocess.run(
        ["bash", "-c", script, "bash", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(**more), timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("redirection", "more"), [("2>/dev/full", {}), (">GONE", {}), ("2>GONE", {}), (">GONE 2>GONE", {}), ("", ASCII)]
)
def test_a_run_ends_whole_where_nobody_reads_and_in_an_ascii_locale(
    tmp_path: Path, tokenizer_dir: Path, redirection: str, more: dict[str, str]
) -> None:
    with ScriptedServer(Script(lambda key: ["<answer>B</answer>"])) as server:
        bench = Bench(tmp_path / "café", server.base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4", frames=10)
        bench.write([row("first"), row("second", video="missing.mp4")])  # the second is spoken of on standard error
        said = redirected(bench.command("--json", str(tmp_path / "figures.json")), redirection, **more)
    assert said.returncode == 0, said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    assert ("Accuracy:      1/2" in said.stdout) == (">GONE" not in redirection.replace("2>GONE", ""))
    for path in (bench.cache, bench.result):
        records = sorted(read_records(path), key=lambda record: record["index"])
        assert [record["stop_reason"] for record in records] == ["answer_found", "exception"]
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["correct"] == 1
    assert json.loads(bench.result.with_suffix(".meta.json").read_text(encoding="utf-8"))["coverage"]["complete"]


@pytest.mark.parametrize("script", ["accuracy.py", "report.py"])
@pytest.mark.parametrize(("redirection", "more"), [(">GONE", {}), ("2>/dev/full", {}), ("", ASCII)])
def test_showing_a_result_never_ends_in_a_traceback(
    tmp_path: Path, script: str, redirection: str, more: dict[str, str]
) -> None:
    path, page = tmp_path / "result_é.jsonl", tmp_path / "page.html"
    record = {"index": 0, "gt": "A", "answer": "A", "stop_reason": "café", "num_rounds": 1, "total_tokens": 2}
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    command = [sys.executable, str(ROOT / script), str(path), *(["-o", str(page)] if script == "report.py" else [])]
    said = redirected(command, redirection, **more)
    assert (said.returncode, said.stderr) == (0, "")
    assert not more or (said.stdout and said.stdout.isascii())
    assert script == "accuracy.py" or page.stat().st_size > 10_000
