"""The scripted server itself: a test that leans on it can only be as right as it is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import HELPERS, environment
from PIL import Image
from scripted_server import MODEL, Script, ScriptedServer

from eva.endpoint.errors import BadRequestError
from eva.endpoint.http_client import Client

SERVER = HELPERS / "scripted_server.py"


def ask(base_url: str, text: str, *more: Any) -> Any:
    async def asked() -> Any:
        client = Client(base_url, "none", 20)
        try:
            messages = [{"role": "user", "content": text}, *more]
            return await client.ask("chat/completions", {"model": MODEL, "messages": messages})
        finally:
            await client.close()

    return asyncio.run(asked())


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
    reply = ask(server.base_url, "[[a]] 1234567", *more)
    assert reply["choices"][0]["message"]["content"] == "eight888", "the assistant's messages are the turn"
    assert reply["usage"]["prompt_tokens"] == 13 // 4 + 0 + 1 + 2 * 3
    (seen,) = server.journal.seen
    assert (seen.key, seen.turn, seen.attempt) == ("a", 1, 0)
    shown = seen.messages[2]["content"][1]
    assert (shown["type"], shown["w"], shown["h"]) == ("image", 56, 84)


@pytest.mark.parametrize("url", ["file://frames/x.png", "file:///a?b.png", "http://127.0.0.1:9/x.png"])
def test_an_image_that_a_server_could_not_open_and_an_unknown_question_are_refused(
    server: ScriptedServer, url: str
) -> None:
    server.script.replies = {"a": ["x"]}
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    with pytest.raises(BadRequestError):
        ask(server.base_url, "[[a]]", image)
    with pytest.raises(BadRequestError):
        ask(server.base_url, "[[nobody]] Q")
    assert len(server.journal.unexpected) == 1


def test_as_a_command_it_prints_its_address_and_logs_what_it_is_asked(tmp_path: Path) -> None:
    script, log = tmp_path / "script.json", tmp_path / "log"
    script.write_text(json.dumps({"replies": {"a": ["hello"]}}), encoding="utf-8")
    command = [sys.executable, str(SERVER), "--script", str(script), "--log", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    assert ask(process.stdout.readline().strip(), "[[a]]")["choices"][0]["message"]["content"] == "hello"
    process.kill()
    process.communicate()
    assert json.loads(log.read_text(encoding="utf-8"))["key"] == "a"
