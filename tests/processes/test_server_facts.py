"""What a run notes about its servers, and whether they serve the weights of its cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, Run, beside, make_video, read_records, row, wait_until
from scripted_server import Script, ScriptedServer

ANSWER = "<answer>B</answer>"
STEP_200, STEP_400 = "/models/step200", "/models/step400"
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def bench(tmp_path: Path, tokenizer_dir: Path) -> Bench:
    bench = Bench(tmp_path, "", tokenizer_dir)
    make_video(bench.videos / "clip.mp4", frames=10)
    bench.write([row("question")])
    return bench


def test_the_meta_file_says_what_each_server_is_and_what_was_asked_of_it(bench: Bench) -> None:
    whole, plain = Script(lambda key: [ANSWER], ranks=2, context=4096), Script(lambda key: [ANSWER], root=None)
    with ScriptedServer(whole) as vllm, ScriptedServer(plain) as other:
        run = bench.run(base_url=f"http://me:swordfish@{vllm.base_url[7:]},{other.base_url}")
    assert run.code == 0, run.said
    for file in (run.result, run.cache):
        text = file.with_suffix(".meta.json").read_text()
        assert "swordfish" not in text
        environment = json.loads(text)["environment"]
        assert environment["servers"] == [
            {
                "address": vllm.base_url,
                "vllm": "0.0.scripted",
                "ranks": 2,
                "model_path": "/models/EVA",
                "context_length": 4096,
            },
            {"address": other.base_url},
        ]
        assert environment["request"] == {"temperature": 0.0, "max_tokens": 2048}


# --- the weights are a setting


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Script(lambda key: [ANSWER], root=STEP_200)) as found:
        yield found


@pytest.fixture
def asked(bench: Bench, server: ScriptedServer) -> Bench:
    """A place with four questions; two of them are recorded, of step 200."""
    bench.base_url = server.base_url
    bench.write([row(f"question {n}") for n in range(4)])
    assert bench.run("--sample", "2").code == 0
    return bench


def settings_of(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run.cache.with_suffix(".meta.json").read_text())["settings"]
    return content


def test_a_cache_of_one_checkpoint_is_not_finished_with_another_of_its_name(
    asked: Bench, server: ScriptedServer
) -> None:
    server.script.root = STEP_400
    refused = asked.run()
    assert refused.code == 2, refused.said
    assert f"weights: '{STEP_200}' then, '{STEP_400}' now" in refused.stderr
    assert len(read_records(asked.cache)) == 2
    assert asked.run("--force").code == 0


def test_a_whole_cache_of_one_checkpoint_has_no_accuracy_for_another(asked: Bench, server: ScriptedServer) -> None:
    server.script.root = STEP_400
    refused = asked.run("--sample", "2")
    assert refused.code == 2, refused.said
    assert f"weights: '{STEP_200}' then, '{STEP_400}' now" in refused.stderr
    assert not refused.stdout
    dead = asked.run("--sample", "2", base_url=NOWHERE)
    assert dead.code == 0, dead.said
    assert "no server answered; weights not compared" in dead.stderr


@pytest.mark.parametrize("sample", ["2", "4"])
def test_unknown_weights_are_said_once_and_refused_never(asked: Bench, server: ScriptedServer, sample: str) -> None:
    server.script.root = None
    silent = asked.run("--sample", sample)
    assert silent.code == 0, silent.said
    assert silent.stderr.count("no weights are stated") == 1
    assert settings_of(silent)["weights"] == STEP_200


def test_several_weights_in_one_run_are_no_run_of_one_of_them(bench: Bench, server: ScriptedServer) -> None:
    with ScriptedServer(Script(lambda key: [ANSWER], root=STEP_400)) as other:
        both = f"{server.base_url},{other.base_url}"
        run = bench.run(base_url=both)
        assert run.code == 0, run.said
        assert settings_of(run)["weights"] == f"{STEP_200} and {STEP_400}"
        refused = bench.run(base_url=server.base_url)
        assert refused.code == 2, refused.said


def test_a_server_that_comes_late_with_other_weights_ends_the_run(bench: Bench, server: ScriptedServer) -> None:
    server.script.default_delay_s = 1
    bench.write([row(f"question {n}") for n in range(30)])
    late = [ScriptedServer(Script(lambda key: [ANSWER], root=STEP_400))]
    port = late[0].server_address[1]
    late.pop().server_close()

    def serve_late() -> None:
        wait_until(lambda: bool(server.journal.seen))
        late.append(ScriptedServer(Script(lambda key: [ANSWER], root=STEP_400), port=port).__enter__())

    with beside(serve_late):
        ended = bench.run("--max-concurrent", "1", base_url=f"{server.base_url},http://127.0.0.1:{port}/v1")
    late[0].__exit__()
    assert ended.code == 1, ended.said
    assert f"{STEP_400}, and the run began with {STEP_200}" in ended.stderr
    assert not late[0].journal.seen
