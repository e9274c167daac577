"""What runs on a node of a cluster, without one: its methods are called as the driver calls them."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from harness import FRAME_TOOL, block, call, make_video, row
from scripted_server import Script, ScriptedServer

from eva.cluster.node import Node, NodeError, NodeSettings, on_this_machine, versions
from eva.dataset.items import Item, parse_item
from eva.endpoint.errors import RankRefusedError, RefusesAllError, UnavailableError
from eva.run.options import Options

T = TypeVar("T")
LOOK = block(call(0, 1, 2))
ANSWER = "<answer>B</answer>"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "clip.mp4", frames=10).parent


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Script({})) as server:
        yield server


@pytest.fixture
def settings(videos: Path, tokenizer_dir: Path, tmp_path: Path, server: ScriptedServer) -> NodeSettings:
    options = Options(
        "own",
        base_url=server.base_url,
        tokenizer=str(tokenizer_dir),
        frame_root=tmp_path / "frames",
        request_timeout=20,
        frame_workers=1,
    )
    return NodeSettings(options, "scripted-eva", str(videos))


def item(key: str) -> Item:
    return parse_item(json.dumps(row(key)), default_index=7)


def on_node(settings: NodeSettings, use: Callable[[Node], Awaitable[T]]) -> T:
    """What `use` gives of a node that is ready."""

    async def used() -> T:
        node = Node(settings)
        arrival = await node.start(["clip.mp4", "clip.mkv", "other.mp4"])
        assert arrival.problem == ""
        assert arrival.videos == {"clip.mp4", "clip.mkv"}
        try:
            return await asyncio.wait_for(use(node), 60)
        finally:
            await node.close()

    return asyncio.run(used())


@pytest.mark.process
def test_a_sample_waits_for_each_reply_and_for_a_server_that_fails(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies = {"q": [LOOK, {"status": 503, "message": "overloaded", "times": 1, "text": ANSWER}]}

    async def play(node: Node) -> tuple[list[Any], Any]:
        first = await node.begin(1, item("q"))
        answers: list[Any] = [await node.ask(1, server.base_url)]
        second = await node.go_on(1)
        answers.append(await node.ask(1, server.base_url))
        # As the driver does: the connection that the refusal came by may be closed by now, which the next one meets.
        for _ in range(3):
            answer = await node.ask(1, server.base_url)
            if answer is True:
                break
        answers.append(answer)
        last = await node.go_on(1)
        assert (first.size, second.size) == (2, 4)
        assert (last.counts.asked, last.counts.decoded) == (2, 2)
        return answers, last.record

    (replied, failure, again), record = on_node(settings, play)
    assert (replied, again) == (True, True)
    assert (record.index, record.answer, record.num_rounds) == (7, "B", 2)
    # It crosses machines, and the driver slows down by it.
    failure = pickle.loads(pickle.dumps(failure))  # noqa: S301
    assert isinstance(failure, UnavailableError)
    assert (failure.overload, failure.timeout, failure.unconnected) == (True, False, False)
    assert "overloaded" in str(failure)


@pytest.mark.process
def test_a_sample_asks_the_rank_that_the_driver_names_and_waits_for_another_where_it_is_refused(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies, server.script.ranks = {"q": [LOOK, ANSWER]}, 4

    async def play(node: Node) -> tuple[Any, Any]:
        await node.begin(1, item("q"))
        refusal = await node.ask(1, server.base_url, 7)
        for _ in range(2):
            assert await node.ask(1, server.base_url, 3) is True
            state = await node.go_on(1)
        return pickle.loads(pickle.dumps(refusal)), state.record  # noqa: S301  it crosses machines

    refusal, record = on_node(settings, play)
    assert isinstance(refusal, RankRefusedError)
    assert (record.answer, record.num_rounds) == ("B", 2)
    assert [(seen.rank, seen.named_rank) for seen in server.journal.of("q")] == [(3, True)] * 2


@pytest.mark.process
def test_a_server_that_refuses_every_sample_is_told_to_the_driver_and_the_sample_still_waits(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies = {"q": [LOOK, ANSWER]}

    async def play(node: Node) -> list[Any]:
        await node.begin(1, item("q"))
        await node.ask(1, server.base_url)
        await node.go_on(1)
        server.script.may_read = False
        refusal = await node.ask(1, server.base_url)
        server.script.may_read = True
        return [pickle.loads(pickle.dumps(refusal)), await node.ask(1, server.base_url)]  # noqa: S301  it crosses machines

    refusal, replied = on_node(settings, play)
    assert isinstance(refusal, RefusesAllError)
    assert "--allowed-local-media-path" in str(refusal)
    assert replied is True


@pytest.mark.process
def test_a_node_samples_as_the_flags_say(settings: NodeSettings, server: ScriptedServer) -> None:
    server.script.replies = {"q": [ANSWER]}

    async def play(node: Node) -> object:
        await node.begin(1, item("q"))
        return await node.ask(1, server.base_url)

    flags = replace(settings.options, temperature=0.7, seed=3)
    assert on_node(replace(settings, options=flags), play) is True
    assert [(seen.body["temperature"], seen.body["seed"]) for seen in server.journal.seen] == [(0.7, 3)]


@pytest.mark.process
def test_what_a_server_answered_to_a_finished_sample_is_asked_again_as_a_proof(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies = {"good": [ANSWER], "refused": [{"status": 400, "message": "too long"}]}

    async def play(node: Node) -> list[str]:
        said = [await node.ask_one_token(server.base_url)]
        for number, key in enumerate(("refused", "good")):
            await node.begin(number, item(key))
            assert await node.ask(number, server.base_url) is (key == "good")
            record = (await node.go_on(number)).record
            assert record is not None
            assert record.stop_reason == ("answer_found" if key == "good" else "openai_bad_request")
            said.append(await node.ask_one_token(server.base_url))
        server.script.down = True
        return [*said, await node.ask_one_token(server.base_url)]

    before, refused, well, down = on_node(settings, play)
    assert "not answered this node yet" in before
    assert "not answered this node yet" in refused, "a refusal proves nothing"
    assert well == ""
    assert "the engine is dead" in down


@pytest.mark.process
def test_a_sample_that_is_dropped_is_over_in_the_middle_of_a_request(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies = {"q": [{"text": ANSWER, "delay_s": 300}]}

    async def drop(node: Node) -> None:
        await node.begin(1, item("q"))
        asking = asyncio.ensure_future(node.ask(1, server.base_url))
        await asyncio.sleep(0.3)
        await node.drop(1)
        with pytest.raises(asyncio.CancelledError):
            await asking
        server.script.replies = {"q": [ANSWER]}
        await node.begin(2, item("q"))
        assert await node.ask(2, server.base_url) is True

    on_node(settings, drop)


@pytest.mark.process
def test_a_sample_that_is_given_up_gives_its_record_with_the_rounds_that_it_completed(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies = {"q": [LOOK, {"status": 500, "message": "cannot decode this image"}]}

    async def give_up(node: Node) -> tuple[Any, Any]:
        await node.begin(1, item("q"))
        await node.ask(1, server.base_url)
        await node.go_on(1)
        failure = await node.ask(1, server.base_url)
        assert isinstance(failure, UnavailableError)
        return await node.give_up(1, failure), await node.give_up(1, failure)

    record, again = on_node(settings, give_up)
    assert (record.index, record.stop_reason, record.num_rounds) == (7, "exception", 0)
    assert "cannot decode this image" in record.error
    assert [len(round_.calls[0].frames) for round_ in record.rounds] == [2]
    assert again is None, "it is over"


@pytest.mark.process
def test_a_machine_that_cannot_play_says_why(settings: NodeSettings, server: ScriptedServer, tmp_path: Path) -> None:
    def problem(of: NodeSettings) -> str:
        return asyncio.run(Node(of).start([])).problem

    options, root = settings.options, settings.video_root
    missing = NodeSettings(options, "scripted-eva", str(tmp_path / "none"))
    assert problem(missing).startswith("there is no video folder")
    assert "is the variable set" in problem(NodeSettings(options, "scripted-eva", "$EVA_NOT_SET/videos"))
    server.script.down = True
    assert "no server can be used from here" in problem(NodeSettings(options, "scripted-eva", root))


def test_only_a_path_that_begins_with_a_variable_is_the_nodes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVA_DISK", "/disk")
    assert on_this_machine("$EVA_DISK/videos") == Path("/disk/videos")
    assert on_this_machine("/videos/$EVA_DISK") == Path("/videos/$EVA_DISK")
    with pytest.raises(NodeError):
        on_this_machine("videos")


def test_other_code_has_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eva.cluster.node.PROJECT", Path("/"))
    same = versions()
    copy = tmp_path / FRAME_TOOL.name
    copy.write_bytes(FRAME_TOOL.read_bytes() + b"# changed")
    monkeypatch.setattr("eva.cluster.node.FRAME_TOOL", copy)
    assert {name for name, version in versions().items() if version != same[name]} == {"this code"}


@pytest.mark.process
def test_a_node_whose_frame_store_cannot_be_used_says_so_when_it_starts(settings: NodeSettings) -> None:
    store = settings.options.frame_root / "store"
    store.parent.mkdir()
    store.touch()
    arrival = asyncio.run(Node(settings).start(["clip.mp4"]))
    assert arrival.problem.startswith(f"the frame store in {store.parent} (--frame-root) cannot be used")
