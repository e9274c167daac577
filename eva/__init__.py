"""The evaluation harness for EVA: one package per room, and imports that go downward only (docs/architecture.md).

In: annotated questions, videos, a model behind a server. Out: records, figures, a page.
The names below are the Python interface (docs/python.md). Each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eva.agent.interface import Agent as Agent
    from eva.agent.interface import AgentSettings as AgentSettings
    from eva.agent.interface import Scale as Scale
    from eva.errors import EvaError as EvaError
    from eva.interface import Result as Result
    from eva.interface import evaluate as evaluate
    from eva.interface import evaluate_async as evaluate_async
    from eva.interface import load_result as load_result
    from eva.protocol.reply import Answer as Answer
    from eva.protocol.reply import Calls as Calls
    from eva.protocol.reply import Stop as Stop

__version__ = "0.1.0"
_HOMES = {
    "Agent": "eva.agent.interface",
    "AgentSettings": "eva.agent.interface",
    "Answer": "eva.protocol.reply",
    "Calls": "eva.protocol.reply",
    "Scale": "eva.agent.interface",
    "Stop": "eva.protocol.reply",
    "EvaError": "eva.errors",
    "Result": "eva.interface",
    "evaluate": "eva.interface",
    "evaluate_async": "eva.interface",
    "load_result": "eva.interface",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'eva' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
