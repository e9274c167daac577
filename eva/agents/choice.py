"""The agent of a run: by its name and its settings, of a file or a package of one's own, or an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from eva.agent.interface import Agent
from eva.agents.blind import Blind
from eva.agents.eva import Eva
from eva.agents.hermes import Hermes
from eva.agents.own import Source, describe_object
from eva.agents.tools import Tools
from eva.agents.uniform import Uniform
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE

NFRAMES = 32
FRAME_TOKENS = 256
# What AgentChoice.settings may name.
AGENT_SETTINGS = frozenset(
    {"agent", "agent_sha256", "agent_args", "nframes", "frame_tokens", "match_sha256", "tool_images"}
)


@dataclass(frozen=True)
class AgentChoice:
    """Which agent a run has, as data: nodes of a cluster make it for themselves. Records bear its `name`.

    `nframes`, `frame_tokens` and `spent` are of `uniform`, `images_for_user` is of `tools`. `source` and `arguments`
    are of a class of one's own, `given` is the agent itself where it was made already. `matched_sha256` is the
    hash of the result that `spent` is from.
    """

    name: str = "eva"
    source: Source | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    given: Agent | None = None
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
        """The agent. Raises AgentError for a class that cannot be used."""
        if self.given is not None:
            return self.given
        return BUILT_IN[self.name](self) if self.source is None else self.source.make(self.arguments)

    def for_nodes(self) -> AgentChoice:
        """The choice for machines that do not have the files of `source`."""
        return self if self.source is None else replace(self, given=None)

    def settings(self) -> dict[str, Any]:
        """What of it changes results, for the meta file; nothing for EVA, as before there were others."""
        if self.source is not None:
            arguments = {"agent_args": dict(self.arguments)} if self.arguments else {}
            return {"agent": self.name, "agent_sha256": self.source.sha256, **arguments}
        if self.given is not None:
            return describe_object(self.given)
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
