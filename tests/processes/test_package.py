"""The package as pip and uv build it: all modules and assets, one version, the dependencies of requirements.txt."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from harness import ROOT

from eva import __version__

NOT_INSTALLED = shutil.ignore_patterns("__pycache__", "*.pyc")
EXTRAS = {"convert": ["convert"], "ray": ["ray"], "test": ["convert", "ray", "test"]}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, by the environment's setuptools, without a network."""
    pytest.importorskip("setuptools", minversion="77", reason="a wheel is built by setuptools 77 or newer")
    home = tmp_path_factory.mktemp("package") / "copy"
    for folder in ("eva", "requirements"):
        shutil.copytree(ROOT / folder, home / folder, ignore=NOT_INSTALLED)
    for name in ("pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, home)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=home, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(home / done.stdout.split()[-1])


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_string(wheel.read(name).decode())


def requirements(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {plain(line) for line in lines if line and not line.startswith("#")}


def plain(requirement: str) -> str:
    return re.sub(r"[ ()]", "", requirement).replace("'", '"')


def test_an_installed_package_has_all_modules_and_assets_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "eva").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == here
    assert {"eva/__init__.py", "eva/py.typed"} <= packed


def test_an_installed_package_has_the_version_and_the_requirements_of_a_plain_clone(wheel: zipfile.ZipFile) -> None:
    owed = requirements(ROOT / "requirements.txt")
    required = [plain(line) for line in metadata(wheel).get_all("Requires-Dist", [])]
    assert metadata(wheel)["Version"] == __version__
    assert {line for line in required if "extra==" not in line} == owed


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_what_its_requirements_file_says(wheel: zipfile.ZipFile, extra: str) -> None:
    owed = set.union(*(requirements(ROOT / "requirements" / f"{name}.txt") for name in EXTRAS[extra]))
    mark = f';extra=="{extra}"'
    required = [plain(line) for line in metadata(wheel).get_all("Requires-Dist", [])]
    assert {line.removesuffix(mark) for line in required if line.endswith(mark)} == owed
