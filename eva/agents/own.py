"""An agent of one's own: a class in a file or a package, with all that was read beside it to make it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from eva.agent.interface import Agent
from eva.errors import EvaError
from eva.files import PROJECT

# Modules that were loaded for an agent have this attribute: they are loaded anew for the next one.
_MARK = "__eva_agent__"
_INSTALLED = {"site-packages", "dist-packages"}


class AgentError(EvaError):
    """An agent that cannot be made; the message says why."""


@dataclass(frozen=True)
class Source:
    """A class, as `zoom.py:Zoom` or `package.module:Zoom`, and the files that were read to make an agent of it: their
    paths below `folder`, and their contents. It travels to the nodes of a cluster."""

    reference: str
    folder: Path
    files: Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def make(self, arguments: Mapping[str, Any]) -> Agent:
        """The agent on a machine that may not have the files. Raises AgentError."""
        folder = Path(tempfile.mkdtemp(prefix=f"eva-agent-{self.sha256[:12]}-"))
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        agent, _ = _load(self.reference, folder, arguments)
        return agent


def load(reference: str, arguments: Mapping[str, Any]) -> tuple[Agent, Source]:
    """The agent of a `path/to/file.py:Class` or a `package.module:Class`, made with these arguments. Raises
    AgentError."""
    place, _, class_name = reference.rpartition(":")
    if not place or not class_name.isidentifier():
        raise AgentError(f"--agent {reference}: it is neither an agent of this harness nor path/to/mine.py:MyAgent")
    if not place.endswith(".py"):
        return _load(reference, Path.cwd(), arguments)
    path = Path(os.path.abspath(place))  # noqa: PTH100  a link counts where it stands
    if not path.is_file():
        raise AgentError(f"--agent {reference}: there is no file {path}")
    return _load(f"{path.name}:{class_name}", path.parent, arguments)


def _load(reference: str, folder: Path, arguments: Mapping[str, Any]) -> tuple[Agent, Source]:
    """Modules beside the file are imported as for a script that is started there."""
    place, _, class_name = reference.rpartition(":")
    for name, module in [*sys.modules.items()]:
        if getattr(module, _MARK, False):
            del sys.modules[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        with _opened_files() as opened:
            module = _import_file(folder / place) if place.endswith(".py") else importlib.import_module(place)
            agent = getattr(module, class_name)(**arguments)
        if not isinstance(agent, Agent) or not inspect.iscoroutinefunction(agent.run):
            raise TypeError("it is not a subclass of eva.Agent with `async def run(self, s)`")
    except (Exception, SystemExit) as error:
        for name in set(sys.modules) - before:  # what it imported is to be read again when it was mended
            if _name_below(folder, folder, getattr(sys.modules[name], "__file__", None) or "/"):
                del sys.modules[name]
        raise AgentError(f"--agent {reference}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(folder))
    sys.path.append(str(folder))  # for what it imports later
    top = sys.modules[module.__name__.partition(".")[0]]
    if not place.endswith(".py") and top.__file__:
        folder = Path(top.__file__).parents[1 if hasattr(top, "__path__") else 0]
    within = folder / top.__name__ if hasattr(top, "__path__") else folder
    loaded = {name: one for name, one in sys.modules.items() if name not in before or one is module}
    for one in loaded.values():
        if (file := getattr(one, "__file__", None)) and _name_below(folder, within, file):
            setattr(one, _MARK, True)
            opened.add(file)
    names = {file: _name_below(folder, within, file) for file in opened if Path(file).suffix != ".pyc"}
    contents = {name: Path(file).read_bytes() for file, name in names.items() if name and Path(file).is_file()}
    return agent, Source(reference, folder, contents)


def _name_below(folder: Path, within: Path, file: str) -> str:
    """The path below `folder` of a file of the agent, empty for any other: beyond `within`, of an installed package,
    or of this harness, which can be in the same folder. The agent's own file can be a link to elsewhere."""
    path = Path(os.path.abspath(file))  # noqa: PTH100  a link counts where it stands
    if not path.is_relative_to(within):
        folder, within, path = folder.resolve(), within.resolve(), path.resolve()
    if not path.is_relative_to(within) or path.is_relative_to(PROJECT / "eva"):
        return ""
    name = path.relative_to(folder)
    return "" if _INSTALLED & set(name.parts) else str(name)


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"own_agent_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # noqa: S101  its name ends with .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for their module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _opened_files() -> Iterator[set[str]]:
    """The files that are read meanwhile. Python can only be told to report this for good, so it is told to stop."""
    opened, active = set[str](), [True]

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event == "open" and isinstance(arguments[0], str) and arguments[1] in (None, "r", "rb"):
            opened.add(arguments[0])

    sys.addaudithook(note)
    try:
        yield opened
    finally:
        active.clear()


def describe_object(agent: Agent) -> dict[str, Any]:
    """What the meta file says of an agent that is an object: its class, the hash of its source, its plain values."""
    kind = type(agent)
    try:
        source = Path(inspect.getsourcefile(kind) or "").read_bytes()
    except (OSError, TypeError):
        source = repr(kind).encode()
    values = {name: value for name, value in vars(agent).items() if isinstance(value, (str, int, float, type(None)))}
    said = {"agent": f"{kind.__module__}:{kind.__qualname__}", "agent_sha256": hashlib.sha256(source).hexdigest()}
    return {**said, "agent_args": values} if values else said
