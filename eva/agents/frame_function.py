"""The frame tool as a function that a model may call: its description, and the texts around it. Pure."""

from __future__ import annotations

from eva.agent.interface import Task
from eva.endpoint.completion import Reply
from eva.json_text import parse_json
from eva.protocol.messages import Message, replace_question, user_prompt
from eva.protocol.option import ANSWER_FORM, find_option, find_tagged, option_letters
from eva.protocol.reply import Action, Answer, CallAttempt, Calls, Stop, find_missing
from eva.protocol.stop_reasons import (
    ARGUMENTS_NOT_JSON,
    CALL_FAILED,
    NO_ANSWER_NO_TOOL_CALL,
    NO_NFRAMES,
    NO_START_OR_END_TIME,
)

NAME = "frame_select"
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Get frames of the video.",
        "parameters": {
            "type": "object",
            "properties": {
                "start_time": {"type": "number", "description": "Start of the window in seconds."},
                "end_time": {"type": "number", "description": "End of the window in seconds."},
                "nframes": {"type": "integer", "description": "Number of frames, evenly spaced over the window."},
                "resize": {"type": "number", "description": "Scale of the frames, 1 for the original size."},
            },
            "required": ["start_time", "end_time", "nframes"],
        },
    },
}
# The calls of a reply that are run. A model that asks for more gets the frames of these.
MOST_CALLS = 32
REASONS = {
    ARGUMENTS_NOT_JSON: "the arguments are not a JSON object",
    NO_START_OR_END_TIME: "start_time and end_time are required",
    NO_NFRAMES: "nframes is required",
}


def ask(task: Task) -> list[Message]:
    """The prompt's turns. Length and size of the video come before the question, the form of an answer behind it."""
    return replace_question(task.prompt, f"{user_prompt(task.question, task.video)}\n{ANSWER_FORM}")


def ask_for_answer() -> Message:
    """What is said before the last request."""
    return {"role": "user", "content": f"You cannot call the tool again. Answer now.\n{ANSWER_FORM}"}


def parse_call(name: object, arguments: object, *, raw: str, call_id: str = "") -> CallAttempt:
    """A call by its name and its arguments, which are a JSON object or the text of one."""
    try:
        value = parse_json(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return CallAttempt(raw, None, ARGUMENTS_NOT_JSON, REASONS[ARGUMENTS_NOT_JSON], call_id)
    if name != NAME:
        return CallAttempt(raw, value, CALL_FAILED, f"there is no function {str(name)[:80]!r}, only {NAME}", call_id)
    error = find_missing(value)
    return CallAttempt(raw, value, error, REASONS[error] if error else None, call_id)


def choose_action(reply: Reply, calls: tuple[CallAttempt, ...], question: str) -> Action:
    """An `<answer>` counts before a call, and a call before any other form of an answer to the question."""
    answer = "" if calls and not find_tagged(reply.text) else find_option(reply.text, option_letters(question))
    if answer:
        return Answer(answer)
    return Calls(calls) if calls else Stop(NO_ANSWER_NO_TOOL_CALL)
