"""A run says where its time went, as its records and the log of its server say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Bench, block, call, make_video, row
from scripted_server import Script, ScriptedServer

LOOK, ANSWER = block(call(0, 1, 2)), "<answer>B</answer>"


def test_records_figures_and_summary_say_what_was_waited_for_and_cached_as_the_servers_log_has_it(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    """Eight samples of three rounds, on a server with two ranks that says what it cached; then one more."""
    bench = Bench(tmp_path, "", tokenizer_dir)
    make_video(bench.videos / "clip.mp4", frames=10)
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
