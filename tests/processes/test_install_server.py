"""demo/install_server.sh with a stand-in for the environment's Python: who is asked to install, and with what."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import ROOT

LIST = "requirements/server-cpu.txt"
PIP = f"-m pip install --quiet --disable-pip-version-check --no-deps -r {LIST}"
UV = f"-m uv pip install --quiet --python .venv-server/bin/python --torch-backend cpu --no-deps -r {LIST}"
STAND_IN = """#!/bin/sh
echo "$*" >>asked
case "$*" in
$FAILS) echo "no match for torch" >&2; exit 1 ;;
esac
"""


@dataclass(frozen=True)
class Installed:
    code: int
    asked: Sequence[str]
    said: str
    finished: bool


def install(home: Path, *, fails: str) -> Installed:
    """`fails`: the shell pattern of the commands that the stand-in fails."""
    shutil.copytree(ROOT / "requirements", home / "requirements", dirs_exist_ok=True)
    (home / "demo").mkdir(exist_ok=True)
    shutil.copy(ROOT / "demo" / "install_server.sh", home / "demo")
    python = home / ".venv-server" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(STAND_IN.replace("$FAILS", fails), encoding="utf-8")
    python.chmod(0o755)
    asked = home / "asked"
    asked.write_text("", encoding="utf-8")
    done = subprocess.run(
        ["bash", home / "demo" / "install_server.sh"],
        capture_output=True, text=True, timeout=60, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    finished = (home / ".venv-server" / "installed.txt").exists()
    return Installed(done.returncode, asked.read_text(encoding="utf-8").splitlines(), done.stderr, finished)


def test_where_pip_finds_all_packages_uv_is_not_needed_and_the_second_start_installs_nothing(tmp_path: Path) -> None:
    first, second = (install(tmp_path, fails="nothing") for _ in range(2))
    assert (first.code, first.asked, first.finished) == (0, [PIP, "demo/server_shims.py"], True)
    assert (second.code, second.asked, second.said) == (0, [], "")


def test_where_pip_knows_pypi_alone_uv_installs_from_pytorchs_index(tmp_path: Path) -> None:
    done = install(tmp_path, fails='"-m pip"*--no-deps*')
    assert (done.code, done.finished) == (0, True)
    pip, get_uv, uv, shims = done.asked
    assert (pip, uv, shims) == (PIP, UV, "demo/server_shims.py")
    assert get_uv.startswith("-m pip install --quiet --disable-pip-version-check uv==")
    assert "no match for torch" not in done.said, "what pip lacked is of no interest where uv had it"


@pytest.mark.parametrize("fails", ["*--no-deps*", "*pip*"])
def test_where_neither_can_the_reasons_are_told_and_nothing_counts_as_installed(tmp_path: Path, fails: str) -> None:
    done = install(tmp_path, fails=fails)
    assert (done.code, done.finished) == (1, False)
    assert "pip had said:\nno match for torch" in done.said
