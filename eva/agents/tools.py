"""OpenAI's native function calling, for any model behind a server that has it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eva.agent.interface import Agent
from eva.agent.play import Sample
from eva.agent.tool_call import Outcome
from eva.agents.frame_function import MOST_CALLS, NAME, TOOL, ask, ask_for_answer, choose_action, parse_call
from eva.endpoint.completion import NativeCall, Reply
from eva.protocol.messages import Message, assistant_message, frame_parts, text_part
from eva.protocol.reply import Action, Answer, CallAttempt, Calls, Stop

# What OpenAI takes as an id or as the name of a function.
_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class Tools(Agent):
    """Asks for frames by `tool_calls`. A failed call gets its error back as text, and the model goes on.

    With `images_for_user`, frames go into a user message after the tool messages, for servers that refuse them there.
    """

    images_for_user: bool

    async def run(self, s: Sample) -> Answer | Stop:
        s.messages = ask(s.task)
        while True:
            last = s.turns_left == 1
            if last:
                s.messages.append(ask_for_answer())
            reply = await s.complete(**({} if last else {"tools": [TOOL]}))
            s.messages[-1] = repeat(reply)
            action = read(reply, s.task.question)
            if not isinstance(action, Calls):
                return action
            s.messages += self.respond(await s.calls(action.calls))

    def respond(self, outcomes: Sequence[Outcome]) -> list[Message]:
        """The messages that bring back what became of the calls."""
        if not self.images_for_user:
            return [_tool_message(outcome, frame_parts(outcome.frames)) for outcome in outcomes]
        messages = [_tool_message(outcome, "The frames are in the message of the user.") for outcome in outcomes]
        frames: list[Message] = []
        for outcome in outcomes:
            if not outcome.error:
                frames += [text_part(f"Frames of the call {outcome.attempt.id}:\n"), *frame_parts(outcome.frames)]
        return [*messages, {"role": "user", "content": frames}] if frames else messages


def read(reply: Reply, question: str) -> Action:
    """What the reply asks for."""
    return choose_action(reply, _calls(reply), question)


def repeat(reply: Reply) -> Message:
    """The reply as the next request repeats it."""
    calls = [_tool_call(native, call) for native, call in zip(reply.calls, _calls(reply), strict=False)]
    message = assistant_message(reply.text)
    return {**message, "tool_calls": calls} if calls else message


def _calls(reply: Reply) -> tuple[CallAttempt, ...]:
    """The first calls of a reply. Each has an id of its own, also where the server did not give it one."""
    calls: dict[str, CallAttempt] = {}
    for number, native in enumerate(reply.calls[:MOST_CALLS]):
        usable = _WORD.fullmatch(native.id) and native.id not in calls
        call_id = native.id if usable else f"call_{number}_of_reply"
        calls[call_id] = parse_call(native.name, native.arguments, raw=native.arguments, call_id=call_id)
    return tuple(calls.values())


def _tool_call(native: NativeCall, call: CallAttempt) -> Message:
    """A call as it is sent back. Servers read the arguments, and refuse what is not JSON."""
    name = native.name if _WORD.fullmatch(native.name) else NAME
    arguments = "{}" if call.arguments is None else native.arguments
    return {"id": call.id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _tool_message(outcome: Outcome, content: str | list[Message]) -> Message:
    content = f"Error: {outcome.reason}" if outcome.error else content
    return {"role": "tool", "tool_call_id": outcome.attempt.id, "content": content}
