"""An agent of one's own: from a file, from a package, or as an object; what was read beside it is in its hash."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import eva
from eva import Agent, AgentSettings, Answer
from eva.agents.choice import AgentChoice
from eva.agents.own import AgentError, load
from eva.run.options import Options
from eva.run.settings import choose_agent, with_agent_settings

MINE = """
from pathlib import Path

from dataclasses import dataclass

from eva import Agent, AgentSettings, Answer
from prompts import FORM

SYSTEM = Path(__file__).with_name("system.txt").read_text()


@dataclass
class Mine(Agent):
    count: int = 1
    word: str = "none"
    settings = AgentSettings(max_turns=3, max_tokens=77)

    async def run(self, s):
        import late
        return Answer(FORM + SYSTEM + late.WORD)
"""


def write(folder: Path, form: str = "form") -> Path:
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "prompts.py").write_text(f"FORM = {form!r}\n")
    (folder / "late.py").write_text("WORD = 'late'\n")
    (folder / "system.txt").write_text("system")
    (folder / "unrelated.txt").write_text("x")
    return folder


def answer(agent: Agent) -> str:
    import asyncio

    end = asyncio.run(agent.run(None))  # type: ignore[arg-type]
    assert isinstance(end, Answer)
    return end.text


def test_a_file_imports_and_reads_what_is_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    agent, source = load(f"{folder}/mine.py:Mine", {})
    assert answer(agent) == "formsystemlate"
    assert sorted(source.files) == ["mine.py", "prompts.py", "system.txt"]


def test_the_hash_changes_with_what_was_read_and_with_nothing_else(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    seen = [load(f"{folder}/mine.py:Mine", {})[1].sha256]
    for name in ("unrelated.txt", "system.txt", "prompts.py", "mine.py"):
        (folder / name).write_text((folder / name).read_text() + "\n")
        seen.append(load(f"{folder}/mine.py:Mine", {})[1].sha256)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4


def test_what_lies_in_the_folder_but_is_not_the_agents_is_neither_hashed_nor_loaded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "a")
    packages = folder / ".venv" / "lib" / "site-packages"
    (packages / "installed_beside").mkdir(parents=True)
    (packages / "installed_beside" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(packages))
    log = "(Path(__file__).parent / 'log.txt').open('a').write('x')"
    (folder / "mine.py").write_text(f"import installed_beside\n{MINE}\n{log}\n")
    first, again = (load(f"{folder}/mine.py:Mine", {}) for _ in range(2))
    installed = [sys.modules[type(agent).__module__].installed_beside for agent, _ in (first, again)]
    assert installed[0] is installed[1]
    assert sorted(again[1].files) == ["mine.py", "prompts.py", "system.txt"]
    assert first[1].sha256 == again[1].sha256


def test_the_files_of_the_harness_are_not_the_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's file stands in the checkout, and is the first to import a module of `eva`."""
    folder = write(tmp_path / "checkout")
    (folder / "eva").mkdir()
    (folder / "eva" / "words_of_eva.py").write_text("")
    (folder / "mine.py").write_text(f"import eva.words_of_eva\n{MINE}")
    monkeypatch.setattr("eva.__path__", [*eva.__path__, str(folder / "eva")])
    monkeypatch.setattr("eva.agents.own.PROJECT", folder)
    _, source = load(f"{folder}/mine.py:Mine", {})
    assert sorted(source.files) == ["mine.py", "prompts.py", "system.txt"]


def test_a_link_counts_with_what_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a")
    (folder / "mine.py").rename(tmp_path / "blob")
    (folder / "mine.py").symlink_to(tmp_path / "blob")
    (tmp_path / "a" / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    _, source = load("../mine.py:Mine", {})
    assert sorted(source.files) == ["mine.py", "prompts.py", "system.txt"]
    assert answer(source.make({})).startswith("formsystem")


def test_agents_of_two_folders_have_each_their_own_modules(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, form=name) for name in ("one", "two"))
    agents = [load(f"{folder}/mine.py:Mine", {})[0] for folder in (first, second)]
    assert [answer(agent)[:3] for agent in agents] == ["one", "two"]


def test_a_machine_without_the_files_makes_the_same_agent(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    _, source = load(f"{folder}/mine.py:Mine", {"count": 2})
    (folder / "late.py").rename(tmp_path / "late.py")
    for name in ("mine.py", "prompts.py", "system.txt"):
        (folder / name).unlink()
    sys.path.append(str(tmp_path))
    try:
        agent = source.make({"count": 2})
        assert (answer(agent), vars(agent)["count"]) == ("formsystemlate", 2)
    finally:
        sys.path.remove(str(tmp_path))


def test_a_class_of_a_package_is_made_here_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pack_of_agents"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("WORD = 'B'\n")
    (package / "mine.py").write_text(
        "from eva import Agent, Answer\nfrom .words import WORD\n\n\nclass Mine(Agent):\n"
        "    async def run(self, s):\n        return Answer(WORD)\n"
    )
    monkeypatch.chdir(tmp_path)
    agent, source = load("pack_of_agents.mine:Mine", {})
    assert answer(agent) == answer(source.make({})) == "B"
    assert sorted(source.files) == [f"pack_of_agents/{name}.py" for name in ("__init__", "mine", "words")]


def test_arguments_are_json_or_text_and_the_settings_of_the_class_hold_unless_a_flag_says_otherwise(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path / "a")
    options = Options("own", agent=f"{folder}/mine.py:Mine", agent_arg=["count=8", "word=plain text"], max_turns=5)
    choice = choose_agent(options, [])
    assert {name: vars(choice.make())[name] for name in ("count", "word")} == {"count": 8, "word": "plain text"}
    assert choice.settings()["agent_args"] == {"count": 8, "word": "plain text"}
    resolved = with_agent_settings(options, choice)
    assert (resolved.max_turns, resolved.max_tokens) == (5, 77)


def test_an_object_is_an_agent_and_its_plain_values_keep_caches_apart() -> None:
    class Here(Agent):
        settings = AgentSettings(max_turns=2)

        def __init__(self, frames: int) -> None:
            self.frames = frames

        async def run(self, s: Any) -> Answer:
            return Answer("B")

    one, other = (choose_agent(Options("own", agent=Here(frames)), []) for frames in (1, 2))
    assert one.settings() != other.settings()
    assert one.settings()["agent"].endswith("Here")
    assert with_agent_settings(Options("own"), one).max_turns == 2


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("nobody", "neither an agent of this harness"),
        ("absent.py:Mine", "there is no file"),
        ("no.such.module:Mine", "ModuleNotFoundError"),
        ("mine.py:Absent", "AttributeError"),
        ("mine.py:Path", "not a subclass of eva.Agent"),
        ("broken.py:Mine", "SyntaxError"),
        ("exits.py:Mine", "SystemExit: 7"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_one_sentence(
    reference: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "a")
    (folder / "broken.py").write_text("class Mine(:")
    (folder / "exits.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(folder)
    with pytest.raises(AgentError, match=said):
        load(reference, {})


def test_what_was_imported_before_an_error_is_read_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "mine.py").write_text(MINE + "\nFORM.absent\n")
    with pytest.raises(AgentError, match="AttributeError"):
        load(f"{folder}/mine.py:Mine", {})
    (folder / "mine.py").write_text(MINE)
    (folder / "prompts.py").write_text("FORM = 'mended'\n")
    assert answer(load(f"{folder}/mine.py:Mine", {})[0]).startswith("mended")


def test_an_argument_for_a_built_in_agent_is_refused() -> None:
    with pytest.raises(AgentError, match="--agent-arg"):
        choose_agent(Options("own", agent="uniform", agent_arg=["n=1"]), [])
    assert AgentChoice().settings() == {}
