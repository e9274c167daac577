"""batch.sh: the six datasets, one after the other, whatever happens to one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import EVAL, ROOT, environment, write_rows

DATASETS = ("videomme", "longvideobench", "mlvu", "lsdbench", "videoholmes", "lvbench")
# Writes its arguments down, one a line, fails on the dataset that $FAILS names, and leaves that of $LEAVES unfinished.
# The list of datasets and the table are the real ones.
FAKE_PYTHON = """#!/bin/sh
case "$1" in -c | *accuracy.py) exec "$REAL" "$@" ;; esac
{ echo "$PWD"; printf '%s\\n' "$@"; echo --; } >> "$WROTE"
case " $* " in *" $FAILS "*) exit 1 ;; *" $LEAVES "*) exit 3 ;; esac
exit 0
"""


@dataclass(frozen=True)
class Batch:
    code: int
    stdout: str
    stderr: str
    calls: list[list[str]]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A folder for the PATH in which `python` and `python3` only take notes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "python3"):
        (folder / name).write_text(FAKE_PYTHON, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def run_batch(python: Path, *arguments: str, fails: str = "none", leaves: str = "none", cwd: Path = ROOT) -> Batch:
    notes = python.parent / "notes"
    path = f"{python}{os.pathsep}{os.environ['PATH']}"
    env = environment(PATH=path, REAL=sys.executable, WROTE=str(notes), FAILS=fails, LEAVES=leaves)
    env.pop("PYTHON", None)
    command = ["bash", str(ROOT / "batch.sh"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=60, check=False)
    calls = [call.splitlines()[1:] for call in notes.read_text(encoding="utf-8").split("--\n") if call.strip()]
    return Batch(done.returncode, done.stdout, done.stderr, calls)


def datasets(batch: Batch) -> list[str]:
    return [call[call.index("--dataset") + 1] for call in batch.calls]


def test_the_six_datasets_run_once_each_from_any_folder_with_the_arguments_as_they_are(
    python: Path, tmp_path: Path
) -> None:
    arguments = ["--base-url", "http://host:1/v1", "--output-dir", "a folder with 'quotes' and *", ""]
    batch = run_batch(python, *arguments, cwd=tmp_path)
    assert batch.code == 0, batch.stderr
    assert sorted(datasets(batch)) == sorted(DATASETS)
    assert all((tmp_path / call[0]).resolve() == EVAL for call in batch.calls)
    assert all(call[-5:] == arguments for call in batch.calls)
    assert batch.stdout == "", "without a result there is no table"


@pytest.mark.parametrize(
    ("fails", "leaves", "code"), [("mlvu", "none", 1), ("none", "lvbench", 3), ("videomme", "mlvu", 1)]
)
def test_a_dataset_that_fails_keeps_no_other_from_running_and_is_named(
    python: Path, fails: str, leaves: str, code: int
) -> None:
    batch = run_batch(python, fails=fails, leaves=leaves)
    assert sorted(datasets(batch)) == sorted(DATASETS)
    assert batch.code == code
    assert all(name in batch.stderr for name in (fails, leaves) if name != "none")


RECORD = {
    "gt": "B", "answer": "B", "stop_reason": "answer_found", "num_rounds": 2, "total_tokens": 9, "videos": ["a.mp4"],
}  # fmt: skip


@pytest.mark.parametrize("form", ["--output-dir", "--output-dir="])
def test_it_ends_with_the_table_of_the_results_of_its_folder(python: Path, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "a folder"
    for name in ("lvbench.1", "lvbench.2", "mlvu_mcq", "demo", "videoholmes"):
        write_rows(folder / f"result_{name}.jsonl", [{"index": 0, **RECORD}])
    arguments = [form + str(folder)] if form.endswith("=") else [form, str(folder)]
    batch = run_batch(python, *arguments, fails="videoholmes")
    assert batch.code == 1, "the table does not change how the runs ended"
    names = [line.split("|")[1].strip() for line in batch.stdout.splitlines()]
    assert names == ["Name", "---", "mlvu\\_mcq", "videoholmes", "lvbench.1", "lvbench.2"]
