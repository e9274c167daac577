"""The loop of one sample: ask, read the reply, look, ask again. The model and the eyes are passed in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eva.agent.refusal import PictureUnreadableError, picture_trouble
from eva.agent.tool_call import Look
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError
from eva.protocol.messages import Message, assistant_message, tool_response
from eva.protocol.reply import Answer, CallAttempt, NoAction, parse_reply
from eva.protocol.stop_reasons import ANSWER_FOUND, BAD_REQUEST, MAX_TURNS_EXCEEDED

Complete = Callable[[Sequence[Message]], Awaitable[Reply]]
LookAt = Callable[[CallAttempt], Awaitable[Look]]


@dataclass(frozen=True)
class Round:
    """One completed reply, and what became of each call in it."""

    reply: Reply
    looks: tuple[Look, ...] = ()


@dataclass
class Episode:
    """A sample as it unfolds; `stop_reason` is empty until it ends.

    `video_file` is the file that is shown, where it is not the annotated one but stands in for it;
    `video_duration_s` is None until the video was opened.
    """

    messages: list[Message] = field(default_factory=list)
    video_file: str = ""
    video_duration_s: float | None = None
    rounds: list[Round] = field(default_factory=list)
    answer: str = ""
    stop_reason: str = ""
    refusal: str = ""

    def frames(self) -> list[Path]:
        """The files of all frames that the conversation shows."""
        looks = [look for round_ in self.rounds for look in round_.looks]
        return [frame for look in looks if look.extraction is not None for frame in look.extraction.frames]

    def stop(self, stop_reason: str, *, answer: str = "") -> None:
        self.stop_reason, self.answer = stop_reason, answer


async def play(episode: Episode, question: str, *, complete: Complete, look_at: LookAt, max_turns: int) -> None:
    """Play the episode to its end, within `max_turns` replies. What fails beyond the model's doing is raised,
    and the episode then holds the rounds that were completed."""
    for _ in range(max_turns):
        try:
            await step(episode, question, complete=complete, look_at=look_at)
        except BadRequestError as error:
            if trouble := await asyncio.to_thread(picture_trouble, str(error), episode.frames()):
                raise PictureUnreadableError(trouble) from error
            episode.refusal = str(error)
            episode.stop(BAD_REQUEST)
        if episode.stop_reason:
            return
    episode.stop(MAX_TURNS_EXCEEDED)


async def step(episode: Episode, question: str, *, complete: Complete, look_at: LookAt) -> None:
    """One round. Its calls run side by side; their frames are shown in the order of the calls."""
    reply = await complete(episode.messages)
    episode.messages.append(assistant_message(reply.text))
    episode.rounds.append(Round(reply))
    action = parse_reply(reply.text)
    if isinstance(action, Answer):
        return episode.stop(ANSWER_FOUND, answer=action.text)
    if isinstance(action, NoAction):
        return episode.stop(action.stop_reason)
    looks = tuple(await asyncio.gather(*map(look_at, action.calls)))
    episode.rounds[-1] = Round(reply, looks)
    errors = [look.error for look in looks if look.error]
    if len(errors) == len(looks):
        return episode.stop("; ".join(errors))
    frames = [frame for look in looks for frame in look.shown]
    episode.messages.append(tool_response(frames, question))
    return None
