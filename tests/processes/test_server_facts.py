"""What a run notes about its servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Bench, make_video, row
from scripted_server import Script, ScriptedServer

ANSWER = "<answer>B</answer>"


@pytest.fixture
def bench(tmp_path: Path, tokenizer_dir: Path) -> Bench:
    bench = Bench(tmp_path, "", tokenizer_dir)
    make_video(bench.videos / "clip.mp4", frames=10)
    bench.write([row("question")])
    return bench


def test_the_meta_file_says_what_each_server_is_and_what_was_asked_of_it(bench: Bench) -> None:
    whole = Script(lambda key: [ANSWER], ranks=2, context=4096)
    with ScriptedServer(whole) as vllm, ScriptedServer(Script(lambda key: [ANSWER])) as other:
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


def test_a_run_goes_on_where_the_server_has_become_another_one(bench: Bench) -> None:
    bench.write([row("question"), row("another")])
    with ScriptedServer(Script(lambda key: [ANSWER], ranks=2, context=4096)) as before:
        assert bench.run("--sample", "1", base_url=before.base_url).code == 0
    with ScriptedServer(Script(lambda key: [ANSWER])) as after:
        run = bench.run(base_url=after.base_url)
    assert run.code == 0, run.said
    meta = json.loads(run.result.with_suffix(".meta.json").read_text())
    assert meta["environment"]["servers"] == [{"address": after.base_url}]
