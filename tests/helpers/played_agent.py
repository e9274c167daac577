"""An agent that plays one sample, with a scripted model and a scripted frame tool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from eva.agent.interface import Agent, Task, TaskVideo
from eva.agent.play import Complete, Episode, Sample
from eva.agent.tool_call import Outcome
from eva.protocol.reply import CallAttempt
from eva.records.schema import Call

VIDEO = TaskVideo(60.0, 640, 360, "clip.mp4")
TASK = Task(0, [{"role": "user", "content": "Q?"}], [VIDEO])


def failed(attempt: CallAttempt, error: str) -> Outcome:
    return Outcome(attempt, Call(attempt.raw, None, None, (), 0, error, error))


async def no_call(attempt: CallAttempt, video: TaskVideo, *, budget: bool) -> Outcome:
    raise AssertionError(f"the tool was not to be called: {attempt}")


async def open_video(number: int) -> TaskVideo:
    return VIDEO


async def play(
    agent: Agent,
    complete: Complete,
    run_call: Callable[..., Awaitable[Outcome]] = no_call,
    *,
    task: Task = TASK,
    episode: Episode | None = None,
    max_turns: int = 6,
    **more: Any,
) -> Episode:
    """The episode at its end. Raises as Sample.play."""
    episode = episode or Episode()
    parts = {"complete": complete, "run_call": run_call, "open_video": open_video, "max_turns": max_turns}
    await Sample(task, episode, **parts, **more).play(agent)  # type: ignore[arg-type]
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
