"""What an agent decides of a sample: its words, and how it reads a model's (docs/agents.md).

All else of a run is the same for every agent: frames, servers, outages, cache, records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eva.agent.tool_call import ToolCallOutcome
from eva.endpoint.completion import Reply
from eva.protocol.messages import Message, VideoInfo, assistant_message, first_question
from eva.protocol.option import find_option
from eva.protocol.reply import Action, Answer, CallAttempt, NoAction
from eva.protocol.stop_reasons import NO_ANSWER_NO_TOOL_CALL


@dataclass(frozen=True)
class Task:
    """What is asked: the turns of the prompt, the header of the video, and the index of the question."""

    index: int
    prompt: Sequence[Mapping[str, str]]
    video: VideoInfo

    @property
    def question(self) -> str:
        """The text of the first user turn, stripped."""
        return first_question(self.prompt)


class Agent:
    """The base of all agents. It holds no state of a sample: one object serves all of them."""

    def look_first(self, task: Task) -> Sequence[CallAttempt]:
        """The frames that it shows before the model has said anything. Their calls have no budget."""
        return ()

    def open(self, task: Task, looks: Sequence[ToolCallOutcome]) -> list[Message]:
        """The messages of the first request; `looks` are the frames of `look_first`. Raises PromptError."""
        raise NotImplementedError

    def fields(self, *, last: bool) -> Mapping[str, Any]:
        """What else the body of a request holds, such as `tools`; `last`: no request follows this one."""
        return {}

    def last_words(self) -> Sequence[Message]:
        """The messages that are added before the last request."""
        return ()

    def repeat(self, reply: Reply) -> Message:
        """The reply as the next request repeats it."""
        return assistant_message(reply.text)

    def read(self, reply: Reply) -> Action:
        """What a reply asks for. By itself, an agent reads an answer and no calls."""
        answer = find_option(reply.text, reply.letters)
        return Answer(answer) if answer else NoAction(NO_ANSWER_NO_TOOL_CALL)

    def respond(self, task: Task, outcomes: Sequence[ToolCallOutcome]) -> list[Message] | NoAction:
        """The messages that bring back what became of a reply's calls; a NoAction ends the sample instead."""
        raise NotImplementedError
