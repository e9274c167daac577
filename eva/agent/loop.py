"""The loop of one sample: ask the model, read its reply, run its tool calls, ask again.

The agent, the model (`complete`) and the frame tool (`run_call`) are passed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from eva.agent.interface import Agent, Task
from eva.agent.refusal import PictureUnreadableError, find_picture_problem
from eva.agent.tool_call import ToolCallOutcome
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError
from eva.errors import VideoError
from eva.protocol.messages import Message
from eva.protocol.option import option_letters
from eva.protocol.reply import Answer, CallAttempt, NoAction
from eva.protocol.stop_reasons import ANSWER_FOUND, BAD_REQUEST, MAX_TURNS_EXCEEDED

# A request: its messages, and the further fields of its body.
Complete = Callable[[Sequence[Message], Mapping[str, Any]], Awaitable[Reply]]
RunCall = Callable[[CallAttempt], Awaitable[ToolCallOutcome]]


@dataclass(frozen=True)
class Round:
    """One completed reply, and what became of each call in it."""

    reply: Reply
    outcomes: tuple[ToolCallOutcome, ...] = ()


@dataclass
class Waits:
    """What a sample waited for so far, in seconds; see eva.records.schema.Waited."""

    seat_s: float = 0.0
    server_s: float = 0.0
    frames_s: float = 0.0


@dataclass
class Episode:
    """A sample as far as it has come; `stop_reason` is empty until it ends.

    `video_file` is the file that is shown, where it is not the annotated file but the same video in another container.
    `video_duration_s` is None until the video is opened. `refusal` is what the server said to a bad request. `looks`
    are the calls that the agent made before the first request.
    """

    messages: list[Message] = field(default_factory=list)
    video_file: str = ""
    video_duration_s: float | None = None
    looks: tuple[ToolCallOutcome, ...] = ()
    rounds: list[Round] = field(default_factory=list)
    answer: str = ""
    stop_reason: str = ""
    refusal: str = ""
    waits: Waits = field(default_factory=Waits)

    def outcomes(self) -> list[ToolCallOutcome]:
        """What became of all calls."""
        return [*self.looks, *(outcome for round_ in self.rounds for outcome in round_.outcomes)]

    def frames(self) -> list[Path]:
        """The files of all frames that the conversation shows."""
        extractions = [outcome.extraction for outcome in self.outcomes()]
        return [frame for extraction in extractions if extraction is not None for frame in extraction.frames]

    def stop(self, stop_reason: str, *, answer: str = "") -> None:
        self.stop_reason, self.answer = stop_reason, answer


async def open_episode(episode: Episode, agent: Agent, task: Task, *, run_call: RunCall) -> None:
    """Fetch the frames that the agent shows first, and write the opening messages. Raises PromptError, VideoError."""
    asked_at = monotonic()
    episode.looks = tuple(await asyncio.gather(*map(run_call, agent.look_first(task))))
    episode.waits.frames_s += monotonic() - asked_at
    for look in episode.looks:
        if look.error:
            raise VideoError(f"the frames that the agent opens with cannot be cut: {look.reason or look.error}")
    episode.messages.extend(agent.open(task, episode.looks))


async def run_episode(
    episode: Episode, agent: Agent, task: Task, *, complete: Complete, run_call: RunCall, max_turns: int
) -> None:
    """Run rounds until the episode ends, at most `max_turns`. A failure that is not the model's is raised; the episode
    then holds the rounds that were completed."""
    for turn in range(1, max_turns + 1):
        try:
            await step(episode, agent, task, complete=complete, run_call=run_call, last=turn == max_turns)
        except BadRequestError as error:
            if problem := await asyncio.to_thread(find_picture_problem, str(error), episode.frames()):
                raise PictureUnreadableError(problem) from error
            episode.refusal = str(error)
            episode.stop(BAD_REQUEST)
        if episode.stop_reason:
            return
    episode.stop(MAX_TURNS_EXCEEDED)


async def step(
    episode: Episode, agent: Agent, task: Task, *, complete: Complete, run_call: RunCall, last: bool
) -> None:
    """One round. Its calls run side by side; their frames are shown in the order of the calls."""
    if last:
        episode.messages.extend(agent.last_words())
    asked_at = monotonic()
    completed = await complete(episode.messages, agent.fields(last=last))
    reply = replace(completed, letters=option_letters(task.question))
    episode.waits.seat_s += max(0.0, monotonic() - asked_at - reply.seconds)
    episode.waits.server_s += reply.seconds
    episode.messages.append(agent.repeat(reply))
    episode.rounds.append(Round(reply))
    action = agent.read(reply)
    if isinstance(action, Answer):
        return episode.stop(ANSWER_FOUND, answer=action.text)
    if isinstance(action, NoAction):
        return episode.stop(action.stop_reason)
    asked_at = monotonic()
    outcomes = tuple(await asyncio.gather(*map(run_call, action.calls)))
    episode.waits.frames_s += monotonic() - asked_at
    episode.rounds[-1] = Round(reply, outcomes)
    response = agent.respond(task, outcomes)
    if isinstance(response, NoAction):
        return episode.stop(response.stop_reason)
    episode.messages.extend(response)
    return None
