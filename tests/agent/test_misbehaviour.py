"""Agents that misbehave: whose failure it is, what is said of it, and that nothing else falls over."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import played_agent
import pytest
from harness import Bench, make_video, row, wait_until
from harness import Run as Ended
from played_agent import replies_of
from scripted_server import Script, ScriptedServer

from eva import Agent, Answer, Stop
from eva.agent import play as engine
from eva.agent.play import AgentFaultError, Episode
from eva.agent.record import episode_record
from eva.dataset.items import Item
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError, OutageError, UnansweredError
from eva.protocol.reply import Usage

Run = Callable[[Any], Any]


def agent_of(run: Run) -> Agent:
    kind = type("Mine", (Agent,), {"run": lambda self, s: run(s)})
    made = kind()
    assert isinstance(made, Agent)
    return made


def asked(s: Any) -> None:
    s.messages = [{"role": "user", "content": "Q?"}]


# --- the agent's own faults, each of one sample


async def raises(s: Any) -> Any:
    return dict[str, str]()["a key"]


async def leaves(s: Any) -> Any:
    raise SystemExit(3)


def ends_with(end: Any) -> Run:
    async def run(s: Any) -> Any:
        return end

    return run


def sends(messages: Any, **fields: Any) -> Run:
    async def run(s: Any) -> Any:
        s.messages = messages
        await s.complete(**fields)

    return run


async def sends_what_is_nested_deep(s: Any) -> Any:
    content: list[Any] = []
    for _ in range(600):
        content = [content]
    await sends([{"role": "user", "content": content}])(s)


async def calls_what_is_no_call(s: Any) -> Any:
    await s.calls([{"start_time": 0}])


def wants(n: int, **more: Any) -> Run:
    async def run(s: Any) -> Any:
        await s.frames(start=0, end=1, n=n, **more)

    return run


async def opens_a_video_that_the_question_has_not(s: Any) -> Any:
    await s.open(7)


async def asks_twice_at_once(s: Any) -> Any:
    asked(s)
    await asyncio.gather(s.complete(), s.complete())
    return Answer("B")


async def has_a_timeout_of_its_own(s: Any) -> Any:
    asked(s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await s.complete()
    return Answer("B")


async def ends_while_it_asks(s: Any) -> Any:
    asked(s)
    s.task_of_mine = asyncio.create_task(s.complete())
    await asyncio.sleep(0.01)
    return Answer("B")


async def cancels_itself(s: Any) -> Any:
    raise asyncio.CancelledError


async def waits_for_nobody(s: Any) -> Any:
    await asyncio.Event().wait()


async def is_always_busy(s: Any) -> Any:
    while True:
        await asyncio.gather(asyncio.sleep(0))


async def does_not_let_itself_be_cancelled(s: Any) -> Any:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1e6)


def is_no_coroutine(s: Any) -> Any:
    return Answer("B")


FAULTS: Mapping[str, tuple[Run, str]] = {
    "raises": (raises, "KeyError: 'a key' (test_misbehaviour.py, line"),
    "leaves": (leaves, "sys.exit(3)"),
    "ends with nothing": (ends_with(None), "must end with Answer"),
    "answers a number": (ends_with(Answer(7)), "must end with Answer"),  # type: ignore[arg-type]
    "stops for an object": (ends_with(Stop(object())), "must end with Answer"),  # type: ignore[arg-type]
    "sends objects": (sends([{"role": "user", "content": object()}]), "cannot be sent as JSON"),
    "sends NaN": (sends([{"role": "user", "content": [float("nan")]}]), "cannot be sent as JSON"),
    "sends 5000 digits": (sends([{"role": "user", "n": 10**5000}]), "cannot be sent as JSON"),
    "sends odd fields": (sends([{"role": "user"}], tools={1, 2}), "cannot be sent as JSON"),
    "sends what is nested deep": (sends_what_is_nested_deep, "nested too deep"),
    "sends a text": (sends("Q?"), "not a list of messages"),
    "sends a tuple": (sends(({"role": "user"},)), "not a list of messages"),
    "sends what has no role": (sends([{"content": "Q?"}]), "an object with a role"),
    "calls what is no call": (calls_what_is_no_call, "CallAttempt"),
    "wants frames of a text": (wants(1, video="clip.mp4"), "one of s.task.videos"),
    "wants less than no frames": (wants(-1), "a whole number above 0"),
    "opens an absent video": (opens_a_video_that_the_question_has_not, "no video 7"),
    "asks twice at once": (asks_twice_at_once, "asks while it waits"),
    "has a timeout of its own": (has_a_timeout_of_its_own, "cancelled what it had asked for"),
    "ends while it asks": (ends_while_it_asks, "ended while it still waited"),
    "cancels itself": (cancels_itself, "cancelled itself"),
    "waits for nobody": (waits_for_nobody, "--sample-timeout"),
    "is always busy": (is_always_busy, "--sample-timeout"),
    "cannot be cancelled": (does_not_let_itself_be_cancelled, "--sample-timeout"),
    "is no coroutine": (is_no_coroutine, "TypeError"),
}


async def slow(messages: Sequence[Any], fields: Mapping[str, Any]) -> Reply:
    await asyncio.sleep(0.2)
    return Reply("B", Usage(1, 1, 2), "stop")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_agent_ends_its_sample_as_the_agents(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "END_S", 0.2)
    run, said = FAULTS[fault]
    with pytest.raises(AgentFaultError) as raised:
        played_agent.run(agent_of(run), slow, timeout_s=0.5)
    assert said in str(raised.value)


def test_what_an_agent_does_with_its_sample_after_the_end_reaches_nothing() -> None:
    later: list[Any] = []

    async def run(s: Any) -> Any:
        later.append(s)
        asked(s)
        await s.complete()
        return Answer("B")

    async def both() -> None:
        complete, requests = replies_of("B", "never")
        await played_agent.play(agent_of(run), complete)
        with pytest.raises(AgentFaultError, match="over"):
            await later[0].complete()
        assert len(requests) == 1

    asyncio.run(both())


@pytest.mark.parametrize("failure", [OutageError("gone"), UnansweredError(OSError("gone"))], ids=type)
def test_an_outage_that_the_agent_swallows_ends_the_sample_all_the_same(failure: Exception) -> None:
    async def run(s: Any) -> Any:
        asked(s)
        for _ in range(3):
            with contextlib.suppress(Exception):
                await s.complete()
        return Answer("B")

    complete, requests = replies_of(failure, "B", "B")
    with pytest.raises(type(failure)):
        played_agent.run(agent_of(run), complete)
    assert len(requests) == 1


def test_the_cancellation_of_the_run_wins_over_an_agent_that_swallows_it() -> None:
    async def run(s: Any) -> Any:
        asked(s)
        with contextlib.suppress(asyncio.CancelledError):
            await s.complete()
        return Answer("B")

    async def cancelled() -> None:
        task = asyncio.create_task(played_agent.play(agent_of(run), slow))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())


def test_two_samples_in_one_object_keep_apart_what_is_kept_in_the_sample() -> None:
    async def run(s: Any) -> Any:
        s.own = s.task.index
        asked(s)
        await s.complete()
        return Answer(str(s.own))

    async def both() -> list[Episode]:
        agent = agent_of(run)
        return await asyncio.gather(*(played_agent.play(agent, slow, index=number) for number in (1, 2)))

    assert [episode.answer for episode in asyncio.run(both())] == ["1", "2"]


# --- what an agent may do to its conversation


def record_of(run: Run, *replies: Any) -> Any:
    complete, requests = replies_of(*replies)
    episode = played_agent.run(agent_of(run), complete)
    record = episode_record(Item(0, ("clip.mp4",), (), "B"), episode, tuple)
    return record, requests


def test_a_request_is_as_the_messages_were_when_it_was_made() -> None:
    async def run(s: Any) -> Any:
        asked(s)
        await s.complete()
        s.messages[0]["content"] = "changed"
        return Answer("B")

    record, requests = record_of(run, "B")
    assert requests[0][0]["content"] == "Q?"
    assert (record.rounds[0].request[0]["content"], record.messages[0]["content"]) == ("Q?", "changed")


def test_requests_that_the_next_one_does_not_go_on_from_are_in_the_record() -> None:
    async def run(s: Any) -> Any:
        for text in ("one", "two"):
            s.messages = [{"role": "user", "content": text}]
            await s.complete()
        await s.complete()
        return Answer("B")

    record, _ = record_of(run, "a", "b", "c")
    assert [bool(round_.request) for round_ in record.rounds] == [True, False, False]
    assert record.rounds[0].request[0]["content"] == "one"


def test_a_refusal_that_the_agent_catches_is_in_the_record_and_costs_a_turn() -> None:
    async def run(s: Any) -> Any:
        asked(s)
        try:
            await s.complete()
        except BadRequestError:
            s.left = s.turns_left
            await s.complete()
        return Answer(str(s.left))

    record, _ = record_of(run, BadRequestError("too long"), "B")
    assert [(one.after, one.detail) for one in record.refusals] == [(0, "too long")]
    assert (record.answer, record.error, record.failure) == ("5", "", None)


# --- in a run

MISCHIEF = """
import time
from eva import Agent, Answer
from helper import broken

class Mine(Agent):
    async def run(self, s):
        s.messages = [dict(turn) for turn in s.task.prompt]
        reply = await s.complete()
        if "[[bad" in s.task.question:
            broken({})
        if "[[slow" in s.task.question:
            time.sleep(7)
        if "[[stuck" in s.task.question:
            while True:
                pass
        return Answer("B")
"""

EXITS = """
import asyncio, sys
from eva import Agent, Answer

async def leave():
    sys.exit(4)

class Exits(Agent):
    async def run(self, s):
        s.messages = [dict(turn) for turn in s.task.prompt]
        reply = await s.complete()
        if "[[leaves]]" in s.task.question:
            await asyncio.gather(leave())
        return Answer(reply.text)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_video(tmp_path / "videos" / "clip.mp4", width=64, height=64)
    (tmp_path / "mine.py").write_text(MISCHIEF, encoding="utf-8")
    (tmp_path / "exits.py").write_text(EXITS, encoding="utf-8")
    (tmp_path / "helper.py").write_text("def broken(found):\n    return found['nothing']\n", encoding="utf-8")
    return tmp_path


def run_questions(folder: Path, agent: str, *keys: str) -> Ended:
    with ScriptedServer(Script({key: ["B"] for key in keys})) as server:
        bench = Bench(folder, server.base_url, Path("none"))
        bench.write([row(key) for key in keys])
        return bench.run("--agent", agent, "--max-concurrent", "1")


@pytest.mark.process
def test_a_faulty_sample_is_the_agents_with_its_line_and_one_traceback_and_the_others_go_on(folder: Path) -> None:
    run = run_questions(folder, "mine.py:Mine", "bad1", "ok1", "bad2", "ok2")
    assert run.code == 0, run.said
    records = run.by_index()
    assert [records[number].get("failure") for number in range(4)] == ["agent", None, "agent", None]
    assert "helper.py, line 2" in records[0]["error"]
    assert run.stderr.count("Traceback") == 1


@pytest.mark.process
def test_three_faults_in_a_row_end_the_run(folder: Path) -> None:
    run = run_questions(folder, "mine.py:Mine", *(f"bad{number}" for number in range(6)))
    assert run.code == 1
    assert "3 samples in a row" in run.stderr
    assert len(run.records()) == 3


@pytest.mark.process
def test_a_call_that_blocks_is_said_with_its_line(folder: Path) -> None:
    run = run_questions(folder, "mine.py:Mine", "slow")
    assert run.code == 0, run.said
    assert "mine.py, line 13 (time.sleep(7)) blocks" in run.stderr


@pytest.mark.process
def test_sys_exit_in_a_task_of_the_agent_ends_the_run_with_a_line_and_what_finished_stays(folder: Path) -> None:
    run = run_questions(folder, "exits.py:Exits", "ok", "leaves")
    assert run.code == 1, run.said
    assert "sys.exit(4)" in run.stderr and "to go on:" in run.stderr
    assert [record["answer"] for record in run.records()] == ["B"]


@pytest.mark.process
def test_two_interrupts_end_a_run_whose_agent_blocks_and_what_finished_stays(folder: Path) -> None:
    with ScriptedServer(Script({"ok": ["B"], "stuck": ["B"]})) as server:
        bench = Bench(folder, server.base_url, Path("none"))
        bench.write([row("ok"), row("stuck")])
        process = bench.start("--agent", "mine.py:Mine", "--max-concurrent", "1")
        wait_until(lambda: len(server.journal.of("stuck")) == 1)
        time.sleep(1)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(3)
        run = bench.finish(process, timeout_s=30)
    assert run.code == 130, run.said
    assert "to go on:" in run.stderr
    assert [record["answer"] for record in run.records()] == ["B"]
