"""What runs on a node of a cluster, without one: its methods are called as the driver calls them."""

from __future__ import annotations

import asyncio
import json
import pickle
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from harness import block, call, make_video, row
from scripted_server import Script, ScriptedServer

from eva.cluster.node import Node, NodeError, NodeSettings, Played, on_this_machine, versions
from eva.dataset.items import Item, parse_item
from eva.endpoint.errors import ServersUnusableError, UnansweredError
from eva.records.schema import Record
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
        arrival = await node.start(versions(), ["clip.mp4", "clip.mkv", "other.mp4"])
        assert arrival.problem == ""
        assert arrival.videos == {"clip.mp4", "clip.mkv"}
        try:
            return await asyncio.wait_for(use(node), 60)
        finally:
            await node.close()

    return asyncio.run(used())


def played(settings: NodeSettings, server: ScriptedServer, rank: int | None = None) -> Played:
    """What a node gives of one sample, as it crosses machines."""
    return pickle.loads(pickle.dumps(on_node(settings, lambda node: node.run(item("q"), server.base_url, rank))))  # noqa: S301


@pytest.mark.process
def test_a_node_runs_a_whole_sample_as_the_flags_say_on_the_rank_that_the_driver_names(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies, server.script.ranks = {"q": [LOOK, {"status": 503, "times": 1, "text": ANSWER}]}, 4
    flags = replace(settings.options, temperature=0.7, seed=3)
    done = played(replace(settings, options=flags), server, rank=3)
    assert isinstance(done.result, Record)
    assert (done.result.index, done.result.answer, done.result.num_rounds) == (7, "B", 2)
    assert (done.counts.asked, done.counts.decoded, done.refused_rank) == (2, 2, None)
    assert {(seen.rank, seen.named_rank, seen.body["seed"]) for seen in server.journal.of("q")} == {(3, True, 3)}
    assert server.journal.paths["/metrics"] == 0, "the driver reads how many ranks there are"


@pytest.mark.process
def test_a_rank_that_is_refused_is_told_to_the_driver_and_the_sample_goes_on_without(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies, server.script.ranks = {"q": [LOOK, ANSWER]}, 4
    done = played(settings, server, rank=7)
    assert isinstance(done.result, Record)
    assert (done.result.answer, done.refused_rank) == ("B", 7)
    assert [seen.named_rank for seen in server.journal.of("q")] == [False] * 2


@pytest.mark.process
def test_a_sample_that_fails_gives_its_record_with_the_completed_rounds_and_what_refuses_all_is_told(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies = {"q": [LOOK, {"status": 500, "message": "cannot decode this image"}]}
    failing = played(settings, server).result
    assert isinstance(failing, UnansweredError)
    assert not failing.lost
    record = failing.record
    assert (record.index, record.stop_reason, record.num_rounds) == (7, "exception", 0)
    assert "cannot decode this image" in record.error
    assert [len(round_.calls[0].frames) for round_ in record.rounds] == [2]
    server.script.replies = {"q": [LOOK, ANSWER]}

    async def lose_the_right_to_read(node: Node) -> Played:
        server.script.may_read = False
        return await node.run(item("q"), server.base_url, None)

    refused = on_node(settings, lose_the_right_to_read).result
    assert isinstance(refused, ServersUnusableError)
    assert "--allowed-local-media-path" in str(refused)


@pytest.mark.process
def test_a_node_waits_out_an_outage_and_ends_in_the_middle_of_a_request(
    settings: NodeSettings, server: ScriptedServer
) -> None:
    server.script.replies = {"q": [ANSWER]}

    async def out_and_back(node: Node) -> Played:
        server.script.down = True
        asyncio.get_running_loop().call_later(1, setattr, server.script, "down", False)
        done = await node.run(item("q"), server.base_url, None)
        server.script.replies = {"q": [{"text": ANSWER, "delay_s": 300}]}
        running = asyncio.ensure_future(node.run(item("q"), server.base_url, None))
        await asyncio.sleep(0.3)
        await node.close()
        with pytest.raises(asyncio.CancelledError):
            await running
        return done

    done = on_node(settings, out_and_back)
    assert isinstance(done.result, Record)


@pytest.mark.process
def test_a_machine_that_cannot_play_says_why(settings: NodeSettings, server: ScriptedServer, tmp_path: Path) -> None:
    def problem(of: NodeSettings) -> str:
        return asyncio.run(Node(of).start(expected, [])).problem

    expected = versions()
    options, root = settings.options, settings.video_root
    missing = NodeSettings(options, "scripted-eva", str(tmp_path / "none"))
    assert problem(missing).startswith("there is no video folder")
    assert "is the variable set" in problem(NodeSettings(options, "scripted-eva", "$EVA_NOT_SET/videos"))
    server.script.down = True
    assert "no server can be used from here" in problem(NodeSettings(options, "scripted-eva", root))
    expected = {**expected, "av": "1.0"}
    assert re.search(r"not set up as this machine: av \d.+ there, 1.0 here", problem(settings))


def test_only_a_path_that_begins_with_a_variable_is_the_nodes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVA_DISK", "/disk")
    assert on_this_machine("$EVA_DISK/videos") == Path("/disk/videos")
    assert on_this_machine("/videos/$EVA_DISK") == Path("/videos/$EVA_DISK")
    with pytest.raises(NodeError):
        on_this_machine("videos")
