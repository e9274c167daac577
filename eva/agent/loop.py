"""The loop of one sample: ask the model, read its reply, run its tool calls, ask again.

The model (`complete`) and the frame tool (`run_call`) are passed in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from eva.agent.refusal import PictureUnreadableError, find_picture_problem
from eva.agent.tool_call import ToolCallOutcome
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError
from eva.protocol.messages import Message, assistant_message, tool_response
from eva.protocol.reply import Answer, CallAttempt, NoAction, parse_reply
from eva.protocol.stop_reasons import ANSWER_FOUND, BAD_REQUEST, MAX_TURNS_EXCEEDED

Complete = Callable[[Sequence[Message]], Awaitable[Reply]]
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
    `video_duration_s` is None until the video is opened. `refusal` is what the server said to a bad request.
    """

    messages: list[Message] = field(default_factory=list)
    video_file: str = ""
    video_duration_s: float | None = None
    rounds: list[Round] = field(default_factory=list)
    answer: str = ""
    stop_reason: str = ""
    refusal: str = ""
    waits: Waits = field(default_factory=Waits)

    def frames(self) -> list[Path]:
        """The files of all frames that the conversation shows."""
        extractions = [outcome.extraction for round_ in self.rounds for outcome in round_.outcomes]
        return [frame for extraction in extractions if extraction is not None for frame in extraction.frames]

    def stop(self, stop_reason: str, *, answer: str = "") -> None:
        self.stop_reason, self.answer = stop_reason, answer


async def run_episode(
    episode: Episode, question: str, *, complete: Complete, run_call: RunCall, max_turns: int
) -> None:
    """Run rounds until the episode ends, at most `max_turns`. A failure that is not the model's is raised; the episode
    then holds the rounds that were completed."""
    for _ in range(max_turns):
        try:
            await step(episode, question, complete=complete, run_call=run_call)
        except BadRequestError as error:
            if problem := await asyncio.to_thread(find_picture_problem, str(error), episode.frames()):
                raise PictureUnreadableError(problem) from error
            episode.refusal = str(error)
            episode.stop(BAD_REQUEST)
        if episode.stop_reason:
            return
    episode.stop(MAX_TURNS_EXCEEDED)


async def step(episode: Episode, question: str, *, complete: Complete, run_call: RunCall) -> None:
    """One round. Its calls run side by side; their frames are shown in the order of the calls."""
    asked_at = monotonic()
    reply = await complete(episode.messages)
    episode.waits.seat_s += max(0.0, monotonic() - asked_at - reply.seconds)
    episode.waits.server_s += reply.seconds
    episode.messages.append(assistant_message(reply.text))
    episode.rounds.append(Round(reply))
    action = parse_reply(reply.text)
    if isinstance(action, Answer):
        return episode.stop(ANSWER_FOUND, answer=action.text)
    if isinstance(action, NoAction):
        return episode.stop(action.stop_reason)
    asked_at = monotonic()
    outcomes = tuple(await asyncio.gather(*map(run_call, action.calls)))
    episode.waits.frames_s += monotonic() - asked_at
    episode.rounds[-1] = Round(reply, outcomes)
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if len(errors) == len(outcomes):
        return episode.stop("; ".join(errors))
    frames = [frame for outcome in outcomes for frame in outcome.shown]
    episode.messages.append(tool_response(frames, question))
    return None
