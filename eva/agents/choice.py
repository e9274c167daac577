"""The agent of a run: by its name and its settings, or from a file of one's own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from eva.agent.interface import Agent
from eva.agents.blind import Blind
from eva.agents.eva import Eva
from eva.agents.hermes import Hermes
from eva.agents.tools import Tools
from eva.agents.uniform import Uniform
from eva.errors import EvaError
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE

NFRAMES = 32
FRAME_TOKENS = 256
# What AgentChoice.settings may name.
AGENT_SETTINGS = frozenset({"agent", "agent_sha256", "nframes", "frame_tokens", "match_sha256", "tool_images"})


class AgentError(EvaError):
    """An agent that cannot be made; the message says why."""


@dataclass(frozen=True)
class OwnFile:
    """A file with an agent: its name, its text, and the name of the class. It travels to the nodes of a cluster."""

    name: str
    text: str
    class_name: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class AgentChoice:
    """Which agent a run has, as data: nodes of a cluster make it for themselves. Records bear its `name`.

    `nframes`, `frame_tokens` and `spent` are of `uniform`, `images_for_user` is of `tools`; `own` is a file in the
    place of a name. `matched_sha256` is the hash of the result that `spent` is from.
    """

    name: str = "eva"
    own: OwnFile | None = None
    nframes: int = NFRAMES
    frame_tokens: int = FRAME_TOKENS
    spent: Mapping[int, int] | None = None
    matched_sha256: str | None = None
    images_for_user: bool = False
    pixels_per_token: int = PIXELS_PER_TOKEN_SIDE

    @property
    def record_name(self) -> str:
        """As a record names it; empty for EVA."""
        return "" if self.name == "eva" else self.name

    def make(self) -> Agent:
        """The agent. Raises AgentError for a file that cannot be used."""
        return BUILT_IN[self.name](self) if self.own is None else make_own(self.own)

    def settings(self) -> dict[str, Any]:
        """What of it changes results, for the meta file; nothing for EVA, as before there were others."""
        if self.own is not None:
            return {"agent": self.name, "agent_sha256": self.own.sha256}
        if self.name == "uniform":
            match = {"match_sha256": self.matched_sha256}
            count = match if self.spent is not None else {"nframes": self.nframes}
            return {"agent": self.name, "frame_tokens": self.frame_tokens, **count}
        images = {"tool_images": "user"} if self.images_for_user else {}
        return {} if self.name == "eva" else {"agent": self.name, **images}


BUILT_IN: Mapping[str, Callable[[AgentChoice], Agent]] = {
    "eva": lambda choice: Eva(),
    "uniform": lambda choice: Uniform(choice.nframes, choice.frame_tokens, choice.pixels_per_token, choice.spent),
    "blind": lambda choice: Blind(),
    "tools": lambda choice: Tools(choice.images_for_user),
    "hermes": lambda choice: Hermes(),
}


def make_own(own: OwnFile) -> Agent:
    """The agent of a file. It is called without arguments. Raises AgentError."""
    module = ModuleType(f"own_agent_{own.sha256[:12]}")
    sys.modules[module.__name__] = module  # dataclasses look there for their module
    try:
        exec(compile(own.text, own.name, "exec"), module.__dict__)  # noqa: S102  the user's own code
        agent = getattr(module, own.class_name)()
    except Exception as error:
        raise AgentError(f"--agent {own.name}:{own.class_name}: {type(error).__name__}: {error}") from error
    if not isinstance(agent, Agent):
        raise AgentError(f"--agent {own.name}:{own.class_name}: it is not a subclass of eva.agent.interface.Agent")
    return agent


def read_own(flag: str) -> OwnFile:
    """`path/to/mine.py:MyAgent` -> the file. Raises AgentError."""
    path, _, class_name = flag.rpartition(":")
    if not path.endswith(".py") or not class_name.isidentifier():
        raise AgentError(f"--agent {flag}: give {', '.join(BUILT_IN)}, or path/to/mine.py:MyAgent")
    try:
        return OwnFile(Path(path).name, Path(path).read_text(encoding="utf-8"), class_name)
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(f"--agent {flag}: the file cannot be read: {error}") from error
