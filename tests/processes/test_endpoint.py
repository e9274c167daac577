"""Servers that answer too slowly, too much, packed or from elsewhere; and what is secret about a server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, block, call, read_whole_lines, wait_until
from hostile_server import (
    MODEL,
    Play,
    a_body_without_end,
    a_byte_now_and_then,
    answers,
    bomb,
    headers_without_end,
    hostile_server,
    nested,
    whole,
)
from scripted_server import Handler, Refusal, Script, ScriptedServer

from eva.endpoint.client import ChatModel
from eva.endpoint.completion import Reply, read_reply
from eva.endpoint.errors import ServerError, UnavailableError
from eva.endpoint.http_client import MAX_REPLY_BYTES, Client
from eva.protocol.reply import Usage

ANSWER = "<answer>B</answer>"
ESCAPE = "\x1b[31m\x1b]0;owned\x07"
MESSAGES = [{"role": "user", "content": "?"}]
SECRET = "swordfish"  # noqa: S105


def failure_of(base_url: str, *, timeout_s: float) -> UnavailableError:
    """What becomes of one completion."""

    async def ask() -> UnavailableError:
        model = ChatModel(Client(base_url, "EMPTY", timeout_s), MODEL)
        try:
            with pytest.raises(UnavailableError) as raised:
                await model.complete(MESSAGES)
        finally:
            await model.client.close()
        return raised.value

    return asyncio.run(ask())


# --- too slow, too much, packed, nonsense


@pytest.mark.parametrize("play", [a_byte_now_and_then, headers_without_end])
def test_the_timeout_holds_for_the_whole_request_however_often_a_byte_comes(play: Play) -> None:
    with hostile_server(play) as server:
        failure = failure_of(server.base_url, timeout_s=0.5)
    assert failure.overload
    assert server.asked == 1


def test_a_reply_without_end_is_given_up_at_the_cap() -> None:
    with hostile_server(a_body_without_end) as server:
        failure = failure_of(server.base_url, timeout_s=600)
        wait_until(lambda: server.sent > MAX_REPLY_BYTES)
    assert f"longer than {MAX_REPLY_BYTES} bytes" in str(failure)
    assert server.sent < 20 * MAX_REPLY_BYTES  # what the sockets hold comes on top


NONSENSE = {
    "packed": bomb(),
    "nested beyond the parser's depth": nested(100_000),
    "a text that is none": whole(b'{"choices": [{"message": {"content": {}}}], "usage": {}}'),
    "nothing": whole(b""),
    "a redirect": whole(b"", "Location: http://127.0.0.1:9/v1/chat/completions", status="307 Temporary Redirect"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_the_servers_failure_and_read_in_a_moment(name: str) -> None:
    with hostile_server(answers(NONSENSE[name])) as server:
        failure = failure_of(server.base_url, timeout_s=600)
    assert not failure.overload


def reply_of(message: Any, reason: object = "stop", **more: Any) -> Reply:
    return read_reply({"choices": [{"message": message, "finish_reason": reason}], **more})


@pytest.mark.parametrize(
    ("message", "reason", "said"),
    [
        ({"content": ANSWER}, "abort", None),
        ({"content": ANSWER}, "abort\x1b[2J", None),
        ({"content": ANSWER}, ["stop"], None),
        ({"content": ANSWER}, None, ANSWER),
        ({"content": ""}, None, None),
        ({"content": None}, "stop", ""),
        ({"content": None}, "repetition", ""),
        ({"content": [{"type": "thinking", "thinking": "?"}, {"type": "text", "text": ANSWER}]}, "stop", ANSWER),
    ],
)
def test_a_reply_is_whole_or_the_servers_failure(message: Any, reason: object, said: str | None) -> None:
    if said is not None:
        assert reply_of(message, reason).text == said
        return
    with pytest.raises(UnavailableError, match="broke its reply off") as failure:
        reply_of(message, reason)
    assert "\x1b" not in str(failure.value)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None,) * 4),
        ([5], (None,) * 4),
        ({"total_tokens": 9}, (None, None, 9, None)),
        ({"prompt_tokens": "5", "completion_tokens": -1, "total_tokens": True}, (None,) * 4),
        ({"prompt_tokens": 5, "completion_tokens": 4.0, "total_tokens": 1e400}, (5, 4, None, None)),
        ({"prompt_tokens_details": {"cached_tokens": 32}}, (None, None, None, 32)),
        ({"prompt_tokens_details": {"cached_tokens": "9"}}, (None,) * 4),
        ({"prompt_tokens_details": [1]}, (None,) * 4),
    ],
)
def test_a_usage_that_says_little_costs_no_reply(usage: Any, counts: tuple[int | None, ...]) -> None:
    assert reply_of({"content": ANSWER}, usage=usage).usage == Usage(*counts)


# --- settings of a server that refuse every sample

LOOK = block(call(0, 1, 2))
NO_FILES = "Cannot load local files without `--allowed-local-media-path`."


def refusing(condition: Callable[[Mapping[str, Any], Sequence[str]], bool], message: str, status: int = 400) -> Script:
    def refuse(body: Mapping[str, Any], urls: Sequence[str]) -> Refusal | None:
        return Refusal(status, message) if condition(body, urls) else None

    return Script(lambda key: [LOOK, ANSWER], refuses=refuse)


def has_file(body: Mapping[str, Any], urls: Sequence[str]) -> bool:
    return any(url.startswith("file:") for url in urls)


# Each with what is owed beside its own words. vLLM 0.32 answers 500 where it may not read files, others 400.
REFUSING = {
    "may read no file": (refusing(has_file, NO_FILES, 500), "--image-transport base64"),
    "takes one image": (Script(lambda key: [LOOK, ANSWER], most_images=1), "--limit-mm-per-prompt"),
    "does not know a field": (refusing(lambda body, urls: True, "unknown field", 422), "chat template"),
    "has 16 tokens": (refusing(lambda body, urls: len(json.dumps(body)) > 200, "context"), "--max-model-len"),
}


@pytest.mark.parametrize("name", REFUSING)
def test_a_server_that_refuses_every_sample_ends_the_run_with_its_words_and_records_nothing(
    bench_at: Callable[..., Bench], name: str
) -> None:
    script, cure = REFUSING[name]
    with ScriptedServer(script) as server:
        bench = bench_at(server.base_url, samples=8)
        run = bench.run("--outage-timeout", "20", "--max-concurrent", "4")
    assert run.code == 1, run.said
    assert run.records() == []
    assert read_whole_lines(run.cache) == []
    (said,) = [line for line in run.stderr.splitlines() if "to go on:" in line]
    words = script.refuses({"messages": "x" * 200}, ["file:", "file:"])
    assert (words.message if words else "At most 1 image") in said
    assert cure in said.partition("to go on:")[0]


def test_a_server_of_text_serves_the_agent_that_shows_nothing_and_what_it_refuses_is_the_models(
    bench_at: Callable[..., Bench],
) -> None:
    def no_image_nor_question_1(body: Mapping[str, Any], urls: Sequence[str]) -> bool:
        return bool(urls) or "question 1" in json.dumps(body)

    with ScriptedServer(refusing(no_image_nor_question_1, "too long")) as server:
        server.script.replies = lambda key: ["B"]
        run = bench_at(server.base_url).run("--agent", "blind")
    assert run.code == 0, run.said
    assert [one["stop_reason"] for one in run.records()] == ["answer_found", "openai_bad_request", "answer_found"]


# --- what is secret, and what a terminal must not get


class AsksForPassword(Handler):
    """Knows one user by name and password; the models are for all."""

    def knows_key(self) -> bool:
        expected = base64.b64encode(f"user:{SECRET}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"


def test_a_password_in_the_address_is_used_and_stands_nowhere(bench_at: Callable[..., Bench], tmp_path: Path) -> None:
    script = Script(lambda key: [ANSWER])
    with ScriptedServer(script) as server:
        server.RequestHandlerClass = AsksForPassword
        bench = bench_at(server.base_url.replace("//", f"//user:{SECRET}@"))
        first = bench.run("--sample", "1")
        assert first.code == 0, first.said
        script.down = True
        run = bench.run("--outage-timeout", "1")
    assert run.code == 1, run.said
    assert f"waiting for {server.base_url}" in run.stderr
    assert SECRET not in first.said + run.said
    assert [path for path in bench.output_dir.iterdir() if SECRET in path.read_text(encoding="utf-8")] == []


def test_the_key_can_come_from_the_environment_and_a_flag_wins(
    bench_at: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(Script(lambda key: [ANSWER], api_key="sesame")) as server:
        bench = bench_at(server.base_url)
        monkeypatch.setenv("EVA_API_KEY", "sesame\n")
        assert bench.run().code == 0
        wrong = bench.run("--api-key", "simsim", "--new-cache", "--yes")
        assert wrong.code == 2, wrong.said
        monkeypatch.setenv("EVA_API_KEY", "simsim")
        assert bench.run("--api-key", "sesame", "--new-cache", "--yes").code == 0
    help_text = bench.run("--help").stdout
    assert "EVA_API_KEY" in help_text
    assert "simsim" not in help_text


def test_a_servers_escape_codes_reach_the_records_and_no_terminal(bench_at: Callable[..., Bench]) -> None:
    replies: dict[str, Any] = {"question 0": [{"status": 422, "message": ESCAPE + "no"}], "*": [ANSWER]}
    with ScriptedServer(Script(replies, models=(f"model{ESCAPE}",))) as server:
        bench = bench_at(server.base_url)
        run = bench.run()
        refused = bench.run("--model", "another", "--new-cache", "--yes")
        checked = bench.run("--check", "--model", "another")
    assert run.code == 3, run.said
    assert ESCAPE in run.by_index()[0]["error"]
    assert "sample 0" in run.stderr
    for said in (run.said, refused.said, checked.said):
        assert "\x1b" not in said
        assert "\x07" not in said
    assert "does not serve" in refused.stderr
    assert "does not serve" in " ".join(checked.stdout.split())


# --- proxies


def test_requests_go_through_the_proxy_of_the_environment_but_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedServer(Script({}, api_key="x")) as proxy, ScriptedServer(Script({})) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1").replace("//", f"//user:{SECRET}@"))
        far, near = "http://far.example:8000/absent", server.base_url.replace("127.0.0.1", "localhost")
        with pytest.raises(ServerError) as refused:
            asyncio.run(ChatModel(Client(far, SECRET, 60)).connect())
        assert asyncio.run(ChatModel(Client(near, "EMPTY", 60)).connect()).name == "scripted-eva"
        assert f"{far}/models" in proxy.journal.paths
    assert SECRET not in str(refused.value)
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET}/word@far.example:3128")
    with pytest.raises(ServerError, match="cannot be used") as raised:
        Client("http://far.example/v1", "EMPTY", 60)
    Client("http://127.0.0.1:8000/v1", "EMPTY", 60)
    assert not any(part in str(raised.value) for part in (SECRET, "word"))


# --- addresses and names that are not quite right


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"user:{SECRET}@localhost:8000/v1?key={SECRET}", "http:// or https:// before the address localhost:8000/v1"),
        (f"http://user:{SECRET}/word@host/v1", "not valid"),
    ],
)
def test_an_address_that_is_none_is_one_sentence_without_its_secrets(address: str, said: str) -> None:
    with pytest.raises(ServerError, match=said) as raised:
        Client(address, "EMPTY", 60)
    assert SECRET not in str(raised.value)


def test_an_address_without_v1_is_given_back_with_it() -> None:
    with pytest.raises(ServerError, match="is it --base-url http:"):
        asyncio.run(ChatModel(Client("http://127.0.0.1:9", "EMPTY", 60)).connect())
