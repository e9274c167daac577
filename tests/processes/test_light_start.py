"""Scripts start without the packages that only a run needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, environment, write_rows

HEAVY = {"av", "cv2", "decord", "httpx2", "transformers", "ray"}
RECORD = {"index": 0, "gt": "B", "answer": "B", "stop_reason": "answer_found", "num_rounds": 1, "total_tokens": 9}


@pytest.mark.parametrize(
    ("script", "more"), [("eval-eva.py", {"numpy", "PIL"}), ("accuracy.py", set()), ("report.py", set())]
)
def test_help_is_printed_before_a_heavy_package_is_imported(script: str, more: set[str]) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, check=True)
    imported = set(re.findall(r"\| +([a-zA-Z_0-9]+)$", done.stderr, re.MULTILINE))
    assert "argparse" in imported
    assert not imported & {*HEAVY, *more, "scipy", "matplotlib"}


# A module that is None in sys.modules cannot be imported, as if it were not installed.
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys({names}))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("script", "more"), [("accuracy.py", []), ("report.py", ["-o", "page.html"])])
def test_a_result_is_scored_and_shown_where_no_video_can_be_decoded(
    tmp_path: Path, script: str, more: list[str]
) -> None:
    path = write_rows(tmp_path / "result_own.jsonl", [RECORD, {**RECORD, "index": 1}])
    command = [sys.executable, "-c", WITHOUT.format(names=sorted(HEAVY)), str(ROOT / script), str(path), *more]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
