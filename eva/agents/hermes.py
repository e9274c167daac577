"""The calls of `tools` as text, in the form of Hermes and Qwen: for servers without a parser of tool calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice

from eva.agent.interface import Agent, Task
from eva.agent.play import Sample
from eva.agent.tool_call import Outcome
from eva.agents.frame_function import MOST_CALLS, TOOL, ask, ask_for_answer, choose_action, parse_call
from eva.endpoint.completion import Reply
from eva.json_text import mapping, parse_json
from eva.protocol.messages import RESPONSE_START, Message, frame_parts, text_part
from eva.protocol.reply import Action, Answer, CallAttempt, Calls, Stop

# Word for word what the chat template of Qwen2.5 writes for `tools`.
DESCRIPTION = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n"
    f"<tools>\n{json.dumps(TOOL)}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML "
    'tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
CALL_START, CALL_END = "<tool_call>", "</tool_call>"


class Hermes(Agent):
    """Asks for frames by `<tool_call>` blocks, which the system message describes."""

    async def run(self, s: Sample) -> Answer | Stop:
        s.messages = open_conversation(s.task)
        while True:
            if s.turns_left == 1:
                s.messages.append(ask_for_answer())
            action = read(await s.complete(), s.task.question)
            if not isinstance(action, Calls):
                return action
            s.messages.append(respond(await s.calls(action.calls)))


def open_conversation(task: Task) -> list[Message]:
    """The messages that put the question and describe the tool."""
    messages = ask(task)
    own = messages.pop(0)["content"] + "\n\n" if messages[0]["role"] == "system" else ""
    return [{"role": "system", "content": own + DESCRIPTION}, *messages]


def read(reply: Reply, question: str) -> Action:
    """What the reply asks for."""
    return choose_action(reply, tuple(islice(_calls(reply.text), MOST_CALLS)), question)


def respond(outcomes: Sequence[Outcome]) -> Message:
    """The message that brings back what became of the calls."""
    return {"role": "user", "content": [part for outcome in outcomes for part in _response(outcome)]}


def _calls(text: str) -> Iterator[CallAttempt]:
    """Every block; the last one may lack its end, where the server stops there."""
    _, _, rest = text.rpartition("</think>")[2].partition(CALL_START)
    while rest:
        raw, _, rest = rest.partition(CALL_END)
        yield _parse(raw.strip())
        rest = rest.partition(CALL_START)[2]


def _parse(raw: str) -> CallAttempt:
    try:
        call = mapping(parse_json(raw))
    except ValueError:
        call = {}
    return parse_call(call.get("name"), call.get("arguments"), raw=raw)


def _response(outcome: Outcome) -> list[Message]:
    if outcome.error:
        return [text_part(f"{RESPONSE_START}\nError: {outcome.reason}\n</tool_response>")]
    return [text_part(f"{RESPONSE_START}\n"), *frame_parts(outcome.frames), text_part("\n</tool_response>")]
