"""An agent that plays one sample, with a scripted model and a scripted frame tool."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from eva.agent.interface import Agent
from eva.agent.play import Complete, Episode, Sample
from eva.agent.sample import SampleRunner
from eva.agent.tool_call import CallRunner, Outcome
from eva.dataset.items import Item
from eva.frames.tool import FoundVideo, FrameTool
from eva.protocol.messages import VideoInfo
from eva.protocol.reply import CallAttempt
from eva.records.schema import Call

VIDEO = VideoInfo(60.0, 640, 360)
PROMPT = ({"role": "user", "content": "Q?"},)


def failed(attempt: CallAttempt, error: str) -> Outcome:
    return Outcome(attempt, Call(attempt.raw, None, None, (), 0, error, error))


async def no_call(attempt: CallAttempt, video: VideoInfo, *, budget: bool) -> Outcome:
    raise AssertionError(f"the tool was not to be called: {attempt}")


@dataclass
class Calls:
    """Runs calls by `run_call`; there is no frame tool."""

    run_call: Callable[..., Awaitable[Outcome]]
    tool: FrameTool | None = None

    async def run(
        self, attempt: CallAttempt, path: Path, video: VideoInfo, *, sample: int, budget: bool = True
    ) -> Outcome:
        return await self.run_call(attempt, video, budget=budget)


async def play(
    agent: Agent,
    complete: Complete,
    run_call: Callable[..., Awaitable[Outcome]] = no_call,
    *,
    index: int = 0,
    question: str = "Q?",
    video: VideoInfo = VIDEO,
    episode: Episode | None = None,
    max_turns: int = 6,
    timeout_s: float = math.inf,
) -> Episode:
    """The episode at its end. Raises as Sample.play."""
    episode, calls = episode or Episode(), cast(CallRunner, Calls(run_call))
    runner = SampleRunner(agent, calls, tuple, Path(), max_turns, timeout_s)
    item, found = (
        Item(index, ("clip.mp4",), ({"role": "user", "content": question},), ""),
        FoundVideo(Path("clip.mp4"), 0, 0, video),
    )
    await Sample(item, found, episode, runner, complete).play()
    return episode


def run(*arguments: Any, **more: Any) -> Episode:
    return asyncio.run(play(*arguments, **more))


def replies_of(*texts: Any) -> tuple[Complete, list[Sequence[Mapping[str, Any]]]]:
    """A model that gives these texts or errors in turn, and the requests that it got."""
    from eva.endpoint.completion import Reply
    from eva.protocol.reply import Usage

    requests: list[Sequence[Mapping[str, Any]]] = []

    async def complete(messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> Reply:
        requests.append(list(messages))
        said = texts[len(requests) - 1]
        if isinstance(said, Exception):
            raise said
        return Reply(said, Usage(1, 1, 2), "stop")

    return complete, requests
