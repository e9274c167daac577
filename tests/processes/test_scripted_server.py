"""The scripted server itself: a test that leans on it can only be as right as it is."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from harness import HELPERS, environment
from PIL import Image
from scripted_server import MODEL, Script, ScriptedServer

SERVER = HELPERS / "scripted_server.py"


def client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=20)


def ask(base_url: str, text: str, *, more: list[Any] | None = None) -> Any:
    messages: list[Any] = [{"role": "user", "content": text}, *(more or [])]
    return client(base_url).chat.completions.create(model=MODEL, messages=messages)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Script({})) as running:
        yield running


def test_usage_counts_a_quarter_of_each_text_part_and_the_images_patches(
    server: ScriptedServer, tmp_path: Path
) -> None:
    image = tmp_path / "with space #1.png"
    Image.new("RGB", (56, 84), "red").save(image)
    parts = [{"type": "text", "text": "seven77"}, {"type": "image_url", "image_url": {"url": image.as_uri()}}]
    server.script.replies = {"a": ["first", "eight888"]}
    more = [{"role": "assistant", "content": "123"}, {"role": "user", "content": parts}]
    reply = ask(server.base_url, "[[a]] 1234567", more=more)
    assert reply.choices[0].message.content == "eight888", "the assistant's messages are the turn"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (13 // 4 + 0 + 1 + 2 * 3, 2)
    (seen,) = server.journal.seen
    assert (seen.key, seen.turn, seen.attempt) == ("a", 1, 0)
    assert {k: v for k, v in seen.messages[2]["content"][1].items() if k != "sha"} == {
        "type": "image",
        "w": 56,
        "h": 84,
    }


def test_an_unknown_question_is_refused_and_remembered(server: ScriptedServer) -> None:
    with pytest.raises(openai.BadRequestError):
        ask(server.base_url, "[[nobody]] Q")
    assert len(server.journal.unexpected) == 1


@pytest.mark.parametrize("url", ["file://frames/x.png", "file:///a?b.png", "http://127.0.0.1:9/x.png"])
def test_an_image_address_that_a_server_could_not_open_is_refused(server: ScriptedServer, url: str) -> None:
    server.script.replies = {"a": ["x"]}
    more = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    with pytest.raises(openai.BadRequestError):
        ask(server.base_url, "[[a]]", more=more)


@pytest.mark.parametrize("fault", ["drop", "cut", "broken_json"])
def test_a_broken_reply_is_broken_once_and_then_whole(server: ScriptedServer, fault: str) -> None:
    server.script.replies = {"a": [{"fault": fault, "times": 1, "text": "whole"}]}
    with pytest.raises((openai.APIError, ValueError)):
        ask(server.base_url, "[[a]]")
    assert ask(server.base_url, "[[a]]").choices[0].message.content == "whole"


def test_after_a_500_the_connection_ends_without_having_said_so(server: ScriptedServer) -> None:
    server.script.replies = {"a": [{"status": 500, "times": 1, "text": "x"}]}
    address = urlsplit(server.base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "[[a]]"}]})
    connection.request("POST", "/v1/chat/completions", body)
    response = connection.getresponse()
    response.read()
    assert response.status == 500
    assert response.headers["Connection"] is None
    connection.auto_open = 0
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.request("POST", "/v1/chat/completions", body)
        connection.getresponse()


def test_as_a_command_it_prints_its_address_and_can_be_killed_and_started_again(tmp_path: Path) -> None:
    script, log = tmp_path / "script.json", tmp_path / "log"
    script.write_text(json.dumps({"replies": {"a": ["hello"]}}), encoding="utf-8")
    port = "0"
    for _ in range(2):
        command = [sys.executable, str(SERVER), "--script", str(script), "--port", port, "--log", str(log)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        port = str(urlsplit(base_url).port)
        assert ask(base_url, "[[a]]").choices[0].message.content == "hello"
        process.kill()
        process.communicate()
    assert [json.loads(line)["key"] for line in log.read_text(encoding="utf-8").splitlines()] == ["a", "a"]
