"""The harness against a real vLLM that serves the demo's model; what is known of its API, seen on the wire.

Skipped, by name, where `bash demo/install_server.sh` cannot install it (`bash test.sh` tries).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Bench, Run, read_whole_lines, wait_until
from PIL import Image
from played_agent import play
from vllm_server import MAX_MODEL_LEN, MODEL, NAME, PYTHON, VllmServer

from demo.make_data import plan, render, rows
from eva.agent.interface import Agent
from eva.agent.play import Episode, Sample
from eva.agent.record import episode_record, exception_record
from eva.agent.refusal import PictureUnreadableError
from eva.agent.tool_call import data_url, file_url
from eva.dataset.items import Item
from eva.endpoint.client import ChatModel
from eva.endpoint.completion import Sampling
from eva.endpoint.errors import RankRefusedError, UnansweredError
from eva.endpoint.http_client import Client
from eva.endpoint.pool import Servers
from eva.protocol.budget import visual_tokens
from eva.protocol.messages import Message
from eva.protocol.reply import Answer, Calls, Stop, parse_reply
from eva.records.schema import Record
from eva.run.meta import server_facts
from eva.video.sampling import output_size

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is not installed: bash demo/install_server.sh"),
]
ITEM = Item(0, ("clip.mp4",), (), "A")
IMAGE_LIMIT = 4
# Sizes of source videos; the frames of each, at every ratio, are what the budget can produce.
SOURCES = ((1280, 720), (640, 480), (720, 1280), (1000, 1000))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first server may read."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def servers(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmServer, VllmServer]]:
    """One server as the README starts it, which reads native calls too, and one that takes few images and may read no
    file."""
    logs = tmp_path_factory.mktemp("vllm")
    native_calls = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    usual = VllmServer(logs / "usual.log", (*limit(9999), "--allowed-local-media-path", str(media), *native_calls))
    strict = VllmServer(logs / "strict.log", limit(IMAGE_LIMIT))
    try:
        for server in (usual, strict):
            server.start()
        for server in (usual, strict):
            server.wait()
        yield usual, strict
    finally:
        for server in (usual, strict):
            server.kill()


def limit(images: int) -> tuple[str, str]:
    return "--limit-mm-per-prompt", json.dumps({"image": images, "video": 0})


@pytest.fixture(scope="module")
def usual(servers: tuple[VllmServer, VllmServer]) -> VllmServer:
    return servers[0]


@pytest.fixture(scope="module")
def strict(servers: tuple[VllmServer, VllmServer]) -> VllmServer:
    return servers[1]


@pytest.fixture(scope="module")
def bench(usual: VllmServer, media: Path) -> Bench:
    """Thirty of the demo's questions, half of which need two looks."""
    bench = Bench(media, usual.url, MODEL)
    films = plan(videos=3, per_kind=15)
    render(films, bench.videos)
    bench.write(rows(films))
    return bench


@pytest.fixture(scope="module")
def at_once(bench: Bench) -> Run:
    return replace(bench, dataset="at-once").run("--max-concurrent", "30", timeout_s=400)


# --- what is asked of it


def images(urls: Sequence[str]) -> list[Message]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "."}, *parts]}]


def picture(path: Path, width: int = 28, height: int = 28) -> Path:
    Image.fromarray(np.full((height, width, 3), 99, np.uint8)).save(path)
    return path


def record_of(server: VllmServer, *conversations: list[Message]) -> list[Record]:
    """The records of one-round samples that ask these things one after the other over one connection."""

    async def records() -> list[Record]:
        client = Client(server.url, "EMPTY", 120)
        models = [ChatModel(client, NAME)]
        pool = Servers(models, ceiling=4, outage_timeout_s=1, ranks=None)
        try:
            return [await one(pool, messages) for messages in conversations]
        finally:
            await pool.close()

    return asyncio.run(records())


async def one(pool: Servers, messages: list[Message]) -> Record:
    episode = Episode()
    try:
        async with pool.assign(avoiding=()) as assignment:
            await play(Once(messages), assignment.complete, episode=episode)
        return episode_record(ITEM, episode, lambda messages: "")
    except UnansweredError as failing:
        return exception_record(ITEM, failing.failure, episode)


@dataclass(frozen=True)
class Once(Agent):
    messages: list[Message]

    async def run(self, s: Sample) -> Answer | Stop:
        s.messages = self.messages
        action = parse_reply((await s.complete()).text)
        assert not isinstance(action, Calls)
        return action


def prompt_tokens(server: VllmServer, messages: list[Message]) -> int:
    model = ChatModel(Client(server.url, "EMPTY", 120), NAME, Sampling(max_tokens=1))
    return int(asyncio.run(model.complete(messages)).usage.prompt_tokens or 0)


# --- what it says of itself


def test_a_rank_that_it_does_not_have_is_refused_by_name_and_its_pages_say_what_it_is(usual: VllmServer) -> None:
    async def ask() -> dict[str, Any]:
        model = ChatModel(Client(usual.url, "EMPTY", 120), NAME)
        with pytest.raises(RankRefusedError, match=r"data_parallel_rank 1 is out of range \[0, 1\)"):
            await replace(model, rank=1).complete([{"role": "user", "content": "?"}])
        assert (await replace(model, rank=0).complete([{"role": "user", "content": "?"}])).usage.prompt_tokens
        return await server_facts(await model.connect())

    facts = asyncio.run(ask())
    assert (facts["ranks"], facts["context_length"], facts["model_path"]) == (1, MAX_MODEL_LEN, str(MODEL))
    assert facts["vllm"].startswith("0.")


# --- runs


def test_thirty_samples_at_once_end_without_an_exception_and_the_tiny_agent_mostly_answers_right(at_once: Run) -> None:
    assert at_once.code == 0, at_once.said
    records = at_once.records()
    assert len(records) == 30 and "exception" not in {record["stop_reason"] for record in records}
    answered = [record for record in records if record["answer"]]
    assert len(answered) >= 11
    assert all(record["trajectory"][0]["calls"][0]["frames"] for record in answered)
    one_look = [record["answer"] == record["gt"] for record in records if record["kind"] == "one-look"]
    assert sum(one_look) >= 11, f"{sum(one_look)} of {len(one_look)}"


def test_images_inside_the_request_give_the_same_answers_and_tokens_as_addresses(bench: Bench, at_once: Run) -> None:
    inside = replace(bench, dataset="inside").run("--image-transport", "base64", "--sample", "6", timeout_s=400)
    assert inside.code == 0, inside.said
    addressed, records = at_once.by_index(), inside.records()
    assert len(records) == 6
    for record in records:
        twin = addressed[record["index"]]
        assert (record["messages"], record["total_tokens"]) == (twin["messages"], twin["total_tokens"])


def test_every_size_that_the_budget_can_produce_costs_the_tokens_of_our_arithmetic(
    usual: VllmServer, tmp_path: Path
) -> None:
    sizes = sorted(
        {
            size
            for source in SOURCES
            for step in range(1, 201)
            # A side of one pixel, which a tiny ratio gives, is enlarged by the server.
            if min(size := output_size(*source, resize=step / 200, factor=28)) >= 28 and max(size) <= 1288
        }
    )
    assert len(sizes) > 100
    text = prompt_tokens(usual, images([]))
    batch: list[tuple[int, int]] = []
    for size in [*sizes, (MAX_MODEL_LEN * 28, 28)]:
        if cost([*batch, size]) > MAX_MODEL_LEN - 200:
            urls = [data_url(picture(tmp_path / f"{w}x{h}.png", w, h)) for w, h in batch]
            assert prompt_tokens(usual, images(urls)) - text == cost(batch), batch
            batch = []
        batch.append(size)


def cost(sizes: Sequence[tuple[int, int]]) -> int:
    """Each image's visual tokens, and the two that stand around it."""
    return sum(visual_tokens(1, 1.0, width=width, height=height) + 2 for width, height in sizes)


# --- other agents


def test_native_calls_and_calls_as_text_cost_the_same_tokens_and_end_alike(bench: Bench) -> None:
    tools, hermes = (
        replace(bench, dataset=agent).run("--agent", agent, "--sample", "8", timeout_s=400)
        for agent in ("tools", "hermes")
    )
    assert (tools.code, hermes.code) == (0, 0), tools.said + hermes.said
    native, text = tools.records(), hermes.records()
    assert all(record["trajectory"][0]["tool_calls"] for record in native)
    assert [round_usage(record) for record in native] == [round_usage(record) for record in text]
    assert [record["answer"] for record in native] == [record["answer"] for record in text]
    assert {record["num_rounds"] for record in native} == {2, 3}
    right = [record["answer"] == record["gt"] for record in native]
    assert sum(right) >= 6, f"{sum(right)} of {len(right)}"


def round_usage(record: dict[str, Any]) -> list[int]:
    return [round_["usage"]["prompt_tokens"] for round_ in record["trajectory"]]


# --- what it refuses, and what becomes of it


def test_a_prompt_that_is_too_long_or_has_too_many_images_ends_as_a_bad_request(
    usual: VllmServer, strict: VllmServer, media: Path, tmp_path: Path
) -> None:
    large, small = file_url(picture(media / "large.png", 1288, 728)), data_url(picture(tmp_path / "x.png"))
    words = [{"role": "user", "content": "colour " * MAX_MODEL_LEN}]
    for server, messages, said in (
        (usual, words, "maximum context length"),
        (usual, images([large] * 8), "maximum context length"),
        (strict, images([small] * (IMAGE_LIMIT + 1)), f"At most {IMAGE_LIMIT} image"),
    ):
        (record,) = record_of(server, messages)
        assert (record.stop_reason, record.failure) == ("openai_bad_request", "model")
        assert said in record.error_detail


def test_a_frame_that_it_may_not_or_cannot_read_is_nobodys_answer(
    usual: VllmServer, media: Path, tmp_path: Path
) -> None:
    whole = picture(media / "whole.png", 280, 280)
    (media / "half.png").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    outside = picture(tmp_path / "x.png")
    for path, said in ((outside, "allowed-local-media-path"), (media / "half.png", "Failed to load")):
        with pytest.raises(PictureUnreadableError, match=said):
            record_of(usual, images([file_url(path)]))


def test_a_missing_frame_is_nobodys_answer_and_the_next_sample_on_the_connection_goes_through(
    usual: VllmServer, media: Path
) -> None:
    good = images([file_url(picture(media / "good.png"))])
    missing, after = record_of(usual, images([file_url(media / "missing.png")]), good)
    assert (missing.stop_reason, missing.failure) == ("exception", "infrastructure")
    assert "No such file" in missing.error
    assert after.stop_reason != "exception"


def test_a_server_without_a_media_path_gives_no_answers(strict: VllmServer, tmp_path: Path) -> None:
    (record,) = record_of(strict, images([file_url(picture(tmp_path / "x.png"))]))
    assert (record.stop_reason, record.failure) == ("exception", "infrastructure")
    assert "allowed-local-media-path" in record.error


def test_check_says_that_a_server_may_not_read_the_frames_and_passes_the_one_of_the_readme(
    bench: Bench, strict: VllmServer
) -> None:
    refused, passed = bench.run("--check", "--sample", "2", base_url=strict.url), bench.run("--check", "--sample", "2")
    assert (refused.code, passed.code) == (1, 0), refused.said + passed.said
    assert "allowed-local-media-path" in refused.stdout
    assert str(MAX_MODEL_LEN) in passed.stdout


# --- its death: the last test, for the server is another one afterwards


def test_killed_and_restarted_in_the_middle_it_costs_no_sample(bench: Bench, usual: VllmServer) -> None:
    killed = replace(bench, dataset="killed")
    run = killed.start("--max-concurrent", "4")
    wait_until(lambda: len(read_whole_lines(killed.cache)) >= 4, timeout_s=200)
    usual.kill()
    usual.start()
    done = killed.finish(run, timeout_s=500)
    assert done.code == 0, done.said
    records = done.records()
    assert [record["index"] for record in records] == list(range(30))
    assert "exception" not in {record["stop_reason"] for record in records}
