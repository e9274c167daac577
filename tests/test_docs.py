"""The pages for people: their links lead somewhere, and the modules and flags that they name are there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import flag_tables
import pytest
from harness import ROOT

PAGES = sorted(page for folder in (".", "docs", "data", "demo", "benchmarks") for page in (ROOT / folder).glob("*.md"))
SCRIPTS = (
    "eval-eva.py",
    "accuracy.py",
    "report.py",
    "select_frame_fallback.py",
    "data/fetch.py",
    "data/convert.py",
)
# These pass their arguments on.
WRAPPERS = {"batch.sh": "eval-eva.py", "demo.sh": "eval-eva.py"}

CODE_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z_-]*")


@dataclass(frozen=True)
class Command:
    """A script of this project as a page calls it, with the flags that the page gives it."""

    page: str
    script: str
    flags: frozenset[str]


def flags_in_help(script: str) -> frozenset[str]:
    """All flags of a script but --help, in every spelling."""
    return frozenset(FLAG.findall("\n".join(re.findall(r"^  (-.*?)(?:  .*)?$", help_of(script), re.MULTILINE)))) - {
        "-h",
        "--help",
    }


@cache
def help_of(script: str) -> str:
    command = [sys.executable, str(ROOT / script), "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def flags_in_tables(page: str, heading: str) -> frozenset[str]:
    """The flags in the first column of all tables below a heading."""
    _, _, rest = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section, _, _ = rest.partition("\n## ")
    assert section, f"{page} has no section {heading!r}"
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    return frozenset(flag for cell in cells for name in re.findall(r"`([^`]+)`", cell) for flag in FLAG.findall(name))


def commands(page: Path) -> Iterator[Command]:
    for language, block in CODE_BLOCK.findall(page.read_text(encoding="utf-8")):
        if language != "bash":
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for place, word in enumerate(words):
                script = WRAPPERS.get(word, word)
                if script in SCRIPTS and place and words[place - 1] in {"python", "bash"}:
                    given = (w.partition("=")[0] for w in words[place + 1 :])
                    flags = frozenset(flag for flag in given if re.match(r"--?[a-zA-Z]", flag))
                    yield Command(page.name, script, flags)


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them in addresses."""
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    lost = []
    for link in LINK.findall(text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_the_table_of_modules_has_every_module_of_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| room | modules |")[2].partition("\n\n")[0]
    named = {
        f"{room}/{name}"
        for room, modules in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", modules))
    }
    rooms = {path.parent for path in (ROOT / "eva").glob("*/__init__.py")}
    there = {f"{room.name}/{path.stem}" for room in rooms for path in room.glob("*.py") if path.stem != "__init__"}
    assert named == there


def test_the_page_of_flags_says_what_help_says() -> None:
    page = flag_tables.PAGE.read_text(encoding="utf-8")
    assert page == flag_tables.with_tables(page), "run  python tests/helpers/flag_tables.py"


@pytest.mark.process
def test_the_protocol_has_every_argument_of_the_frame_tool_but_our_own() -> None:
    owed = flags_in_tables("docs/protocol.md", "Section 5: the frame tool")
    assert owed == flags_in_help("select_frame_fallback.py") - {"--format"}


@pytest.mark.process
def test_every_command_on_a_page_has_only_flags_that_the_command_knows() -> None:
    found = [command for page in PAGES for command in commands(page)]
    assert {command.script for command in found} >= {"eval-eva.py", "accuracy.py", "report.py", "data/convert.py"}
    unknown = [(c.page, c.script, flags) for c in found if (flags := c.flags - flags_in_help(c.script))]
    assert unknown == []


def test_every_page_in_docs_is_named_in_the_readme() -> None:
    named = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert [page.name for page in PAGES if page.parent == ROOT / "docs" and f"docs/{page.name}" not in named] == []
