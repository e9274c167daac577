"""How `tools` and `hermes` read a reply, whatever a model or a server writes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import played_agent
import pytest
from agent_replies import hermes, window
from hostile_replies import FIVE_MB, HOSTILE, check_linear
from random_replies import a_reply
from strict_openai import find_fault

from eva.agent.interface import Agent
from eva.agent.play import Episode
from eva.agent.record import episode_record
from eva.agent.tool_call import CallRunner, CallSettings, Outcome
from eva.agents import hermes as hermes_agent
from eva.agents import tools as tools_agent
from eva.agents.blind import Blind
from eva.agents.eva import Eva
from eva.agents.frame_function import MOST_CALLS
from eva.agents.hermes import Hermes
from eva.agents.tools import Tools
from eva.dataset.items import Item
from eva.endpoint.completion import NativeCall, Reply, read_reply
from eva.frames.tool import CallFailedError, Extraction, FrameTool
from eva.protocol.arguments import FrameRequest
from eva.protocol.messages import Message, VideoInfo
from eva.protocol.reply import Action, Answer, CallAttempt, Calls, Stop, Usage
from eva.records.cache import encode
from eva.records.schema import read_record, record_json

USAGE = Usage(1, 1, 2)
VIDEO = VideoInfo(60.0, 640, 360)
QUESTION = ({"role": "user", "content": "Q?"},)
LOOK = window(0, 4, 2)
FUZZED = 600
MODELS_OWN = {"answer_found", "no_answer_no_tool_call", "max_turns_exceeded"}


def said(text: str, *calls: NativeCall) -> Reply:
    return Reply(text, USAGE, "stop", calls=calls)


def native(arguments: str, *, name: str = "frame_select", call_id: str = "") -> NativeCall:
    return NativeCall(call_id, name, arguments)


def read(agent: Agent, reply: Reply) -> Action:
    return (hermes_agent if isinstance(agent, Hermes) else tools_agent).read(reply, "Q?")


def calls_of(agent: Agent, reply: Reply) -> list[tuple[Any, str | None]]:
    action = read(agent, reply)
    assert isinstance(action, Calls)
    return [(call.arguments, call.error) for call in action.calls]


def test_hermes_reads_every_block_and_a_last_one_without_its_end() -> None:
    text = hermes(LOOK, window()) + '\n<tool_call>\n{"name": "frame_select", "arguments": {"nframes": 1}}'
    assert calls_of(Hermes(), said(text)) == [(LOOK, None), (window(), None), ({"nframes": 1}, "no_start_or_end_time")]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ("frame_select", "arguments_not_json"),
        ("[]", "arguments_not_json"),
        ('{"name": "frame_select"}', "arguments_not_json"),
        ('{"name": "frame_select", "arguments": [1]}', "arguments_not_json"),
        ('{"name": "rm", "arguments": {}}', "call_frame_select_failed"),
        ('{"tool": "frame_select", "arguments": {}}', "call_frame_select_failed"),
        ('{"name": "frame_select", "arguments": {"start_time": 1, "end_time": 2}}', "no_nframes"),
        ('{"name": "frame_select", "arguments": ' + '{"a":' * 500 + "1" + "}" * 500 + "}", "arguments_not_json"),
    ],
)
def test_a_call_that_cannot_run_has_an_error_and_a_reason(raw: str, error: str) -> None:
    action = read(Hermes(), said(f"<tool_call>{raw}</tool_call>"))
    assert isinstance(action, Calls)
    assert [call.error for call in action.calls] == [error]
    assert action.calls[0].reason


def test_arguments_that_are_the_text_of_an_object_are_read_too() -> None:
    text = json.dumps({"name": "frame_select", "arguments": json.dumps(LOOK)})
    assert calls_of(Hermes(), said(f"<tool_call>{text}</tool_call>")) == [(LOOK, None)]


@pytest.mark.parametrize("agent", [Hermes(), Tools(images_for_user=False)], ids=["hermes", "tools"])
def test_an_answer_in_its_tags_counts_before_a_call_and_a_call_before_other_answers(agent: Agent) -> None:
    call = (hermes(LOOK), native(json.dumps(LOOK)))
    assert read(agent, said(f"<answer>B</answer> {call[0]}", call[1])) == Answer("B")
    assert isinstance(read(agent, said(f"The answer is B, I think. {call[0]}", call[1])), Calls)
    assert read(agent, said("The answer is B, I think.")) == Answer("B")
    assert isinstance(read(agent, said("Hm.")), Stop)


@pytest.mark.parametrize(
    "agent", [Blind(), Hermes(), Tools(images_for_user=False), Eva()], ids=lambda one: type(one).__name__
)
def test_every_agent_reads_a_letter_that_the_question_has_beyond_h(agent: Agent) -> None:
    async def complete(_: Sequence[Message], __: Mapping[str, Any]) -> Reply:
        return said("Answer: J.")

    question = "Which?\n" + "\n".join(f"{letter}. it" for letter in "ABCDEFGHIJ")
    assert played_agent.run(agent, complete, question=question, max_turns=1).answer == "J"


def test_ids_that_a_server_left_out_or_gave_twice_are_replaced_the_same_way_in_both_messages() -> None:
    natives = [native("{}", call_id=call_id) for call_id in ("a", "a", "", "x" * 99, "ö\n", "b")]
    reply = said("", *natives)
    action = tools_agent.read(reply, "Q?")
    assert isinstance(action, Calls)
    ids = [call.id for call in action.calls]
    assert (ids[0], ids[-1], len(set(ids))) == ("a", "b", 6)
    assert [call["id"] for call in tools_agent.repeat(reply)["tool_calls"]] == ids


def test_thousands_of_calls_are_not_all_run_nor_sent_back() -> None:
    agent = Tools(images_for_user=False)
    reply = said("", *[native(json.dumps(LOOK))] * 5000)
    assert len(calls_of(agent, reply)) == len(tools_agent.repeat(reply)["tool_calls"]) == MOST_CALLS
    assert len(calls_of(Hermes(), said(hermes(*[LOOK] * 5000)))) == MOST_CALLS


@pytest.mark.parametrize(
    "calls",
    [None, 7, "x", {}, [None, 7, []], [{"function": 7}], [{"id": 7, "function": {"name": 7, "arguments": None}}]],
)
def test_native_calls_of_any_shape_are_read_from_a_completion(calls: Any) -> None:
    message = {"role": "assistant", "content": "x", "tool_calls": calls, "reasoning": 7}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    reply = read_reply({"choices": [{"message": message}], "usage": usage})
    assert (reply.text, reply.reasoning) == ("x", "")
    assert all(call.arguments == "" for call in reply.calls)


def test_arguments_that_a_server_gives_as_an_object_are_kept_as_json() -> None:
    message = {"content": None, "tool_calls": [{"id": "a", "function": {"name": "frame_select", "arguments": LOOK}}]}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    reply = read_reply({"choices": [{"message": message}], "usage": usage})
    assert calls_of(Tools(images_for_user=False), reply) == [(LOOK, None)]


# --- hostile replies

HOSTILE_CALLS = {
    "open call tags with text": lambda n: "<tool_call>x" * (n // 12),
    "empty blocks": lambda n: "<tool_call></tool_call>" * (n // 23),
    "many calls": lambda n: hermes(LOOK) * (n // 100),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_costs_hermes_time_linear_in_its_length(name: str) -> None:
    check_linear(name, lambda text: read(Hermes(), said(text)))


@pytest.mark.parametrize("name", HOSTILE_CALLS)
def test_five_megabytes_of_calls_are_read_as_far_as_they_are_run(name: str) -> None:
    action = read(Hermes(), said(HOSTILE_CALLS[name](FIVE_MB)))
    assert isinstance(action, Calls)
    assert len(action.calls) <= MOST_CALLS


class NoTool:
    """A frame tool that refuses every call, and remembers what reached it."""

    def __init__(self) -> None:
        self.asked: list[FrameRequest] = []

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        self.asked.append(call)
        raise CallFailedError("not started")


def play(agent: Agent, number: int, tool: NoTool) -> tuple[Episode, list[Sequence[Message]]]:
    """An episode with random reply `number`, then an answer."""
    text = a_reply(number)
    arguments = re.findall(r'"(?:arguments|parameters)": (\{.*\})\}', text)
    natives = [native(one, call_id=text[:9]) for one in [*arguments, text[:100]]]
    natives += [native("{}", name=text[:20])]
    text = text.replace('"tool"', '"name"').replace('"parameters"', '"arguments"')
    text = text.replace("}\n{", "}</tool_call><tool_call>{")
    replies = iter([said(text, *natives if number % 2 else ()), said("B")])
    requests: list[Sequence[Message]] = []

    async def complete(messages: Sequence[Message], fields: Mapping[str, Any]) -> Reply:
        requests.append(list(messages))
        return next(replies)

    async def run() -> Episode:
        runner = CallRunner(cast(FrameTool, tool), CallSettings(12000, 720, "requested", "file"))

        async def run_call(call: CallAttempt, video: VideoInfo, *, budget: bool) -> Outcome:
            return await runner.run(call, Path("/clip.mp4"), VIDEO, sample=number)

        return await played_agent.play(agent, complete, run_call, index=number, video=VIDEO, max_turns=2)

    return asyncio.run(run()), requests


@pytest.mark.parametrize("agent", [Hermes(), Tools(images_for_user=True)], ids=["hermes", "tools"])
def test_whatever_a_model_replies_ends_in_a_record_and_in_requests_that_a_strict_server_takes(agent: Agent) -> None:
    tool, faults = NoTool(), []
    for number in range(FUZZED):
        episode, requests = play(agent, number, tool)
        record = episode_record(Item(number, ("clip.mp4",), QUESTION, "B"), episode, lambda messages: "")
        line = encode(record_json(record))
        assert read_record(line).index == number
        assert record.stop_reason in MODELS_OWN
        faults += [fault for messages in requests if (fault := find_fault({"messages": messages}))]
    assert faults == []
    assert len(tool.asked) > FUZZED / 20, "some of these calls reach the tool"
    for call in tool.asked:
        assert isinstance(call.nframes, int) and call.nframes <= 9999
        assert all(abs(value) < float("inf") for value in (call.start_s, call.end_s, call.resize))
