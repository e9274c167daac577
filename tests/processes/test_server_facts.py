"""What a run notes of its servers and its time, and whether the servers have the weights of its cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, Run, beside, block, call, read_records, row, wait_until
from scripted_server import Script, ScriptedServer

LOOK, ANSWER = block(call(0, 1, 2)), "<answer>B</answer>"
STEP_200, STEP_400 = "/models/step200", "/models/step400"
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def bench(bench_at: Callable[..., Bench]) -> Bench:
    return bench_at("", samples=1)


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


# --- where the time goes


def test_records_figures_and_summary_say_what_was_waited_for_and_cached_as_the_servers_log_has_it(
    bench: Bench, tmp_path: Path
) -> None:
    """Eight samples of three rounds, on a server with two ranks that says what it cached; then one more."""
    bench.write([row(f"question {number}") for number in range(9)])
    script = Script(lambda key: [LOOK, LOOK, {"text": ANSWER, "delay_s": 0.1}], ranks=2, tells_cached=True)
    with ScriptedServer(script) as server:
        first, second = tmp_path / "first.json", tmp_path / "second.json"
        assert bench.run("--json", str(first), "--sample", "8", base_url=server.base_url).code == 0
        run = bench.run("--json", str(second), base_url=server.base_url)
    assert run.code == 0, run.said
    told = [round_["usage"]["cached_tokens"] for record in run.records() for round_ in record["trajectory"]]
    assert sorted(told) == sorted(one.cached_tokens for one in server.journal.seen)
    for record in run.records():
        waited, trajectory = record["waited"], record["trajectory"]
        assert waited["server_s"] == pytest.approx(sum(round_["seconds"] for round_ in trajectory), abs=0.002)
        assert waited["frames_s"] >= max(round_["calls"][0]["executed"]["seconds"] for round_ in trajectory[:2])
        assert sum(waited.values()) <= record["seconds"] + 0.002

    figures, log = json.loads(first.read_text())["time_use"], server.journal.seen[:24]
    prompts, cached = sum(one.prompt_tokens for one in log), sum(one.cached_tokens for one in log)
    assert (figures["samples"]["count"], figures["prompt_tokens"]["total"]) == (8, prompts)
    # A sample keeps to its rank, so each round finds all blocks that the round before left.
    assert figures["prompt_tokens"]["cached_share"] == round(cached / prompts, 4) > 0
    assert figures["prompt_tokens"]["cacheable_share"] == figures["prompt_tokens"]["cached_share"]
    assert json.loads(second.read_text())["time_use"]["samples"]["count"] == 1
    said = [line for line in run.stdout.splitlines() if line.startswith(("Prompt tokens", "Samples waited"))]
    assert said[0].endswith("% possible") and "% of their time for replies" in said[1]

    # A meta file of an earlier version has such figures too: it is read, and a run with nothing to do has none.
    meta = run.cache.with_suffix(".meta.json")
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "time_use": [{"samples": {"count": 1}}]}))
    again = bench.run(base_url="http://127.0.0.1:9/v1")
    assert again.code == 0, again.said
    assert "Samples waited" not in again.stdout
