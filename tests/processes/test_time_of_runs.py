"""A run says where its time went, as its records and the log of its server say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Bench, Run, block, call, make_video, read_records, row
from scripted_server import Script, ScriptedServer, Seen

LOOK, ANSWER = block(call(0, 1, 2)), "<answer>B</answer>"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> tuple[Run, list[Seen]]:
    """Eight samples of three rounds, on a server with two ranks that says what it cached; then one more."""
    bench = Bench(tmp_path_factory.mktemp("bench"), "", tokenizer_dir)
    make_video(bench.videos / "clip.mp4", frames=10)
    bench.write([row(f"question {number}") for number in range(9)])
    script = Script(lambda key: [LOOK, LOOK, {"text": ANSWER, "delay_s": 0.1}], ranks=2, tells_cached=True)
    with ScriptedServer(script) as server:
        first, second = str(bench.folder / "first.json"), str(bench.folder / "second.json")
        assert bench.run("--json", first, "--sample", "8", base_url=server.base_url).code == 0
        run = bench.run("--json", second, base_url=server.base_url)
    assert run.code == 0, run.said
    return run, server.journal.seen


def test_each_round_says_how_much_of_its_prompt_was_cached(ran: tuple[Run, list[Seen]]) -> None:
    run, seen = ran
    told = [round_["usage"]["cached_tokens"] for record in run.records() for round_ in record["trajectory"]]
    assert sorted(told) == sorted(one.cached_tokens for one in seen)
    assert all(record["trajectory"][1]["usage"]["cached_tokens"] > 0 for record in run.records())


def test_each_sample_says_what_it_waited_for(ran: tuple[Run, list[Seen]]) -> None:
    for record in ran[0].records():
        waited, trajectory = record["waited"], record["trajectory"]
        assert waited["server_s"] == pytest.approx(sum(round_["seconds"] for round_ in trajectory), abs=0.002)
        assert waited["frames_s"] >= max(round_["calls"][0]["executed"]["seconds"] for round_ in trajectory[:2])
        assert sum(waited.values()) <= record["seconds"] + 0.002


def test_the_figures_are_those_of_the_run_as_the_servers_log_gives_them(ran: tuple[Run, list[Seen]]) -> None:
    run, log = ran[0], ran[1][:24]
    figures = json.loads((run.output_dir.parent / "first.json").read_text())["time_use"]
    assert figures["samples"]["count"] == 8
    prompts, cached = sum(one.prompt_tokens for one in log), sum(one.cached_tokens for one in log)
    assert figures["prompt_tokens"]["total"] == prompts
    # A sample keeps to its rank, so each round finds all blocks that the round before left.
    assert figures["prompt_tokens"]["cached_share"] == round(cached / prompts, 4)
    assert figures["prompt_tokens"]["cacheable_share"] == figures["prompt_tokens"]["cached_share"] > 0
    second = json.loads((run.output_dir.parent / "second.json").read_text())["time_use"]
    assert second["samples"]["count"] == 1


def test_the_summary_says_it_in_lines_for_people(ran: tuple[Run, list[Seen]]) -> None:
    lines = [line for line in ran[0].stdout.splitlines() if line.startswith(("Prompt tokens", "Samples waited"))]
    assert len(lines) == 2
    assert lines[0].endswith("% possible")
    assert "% of their time for replies" in lines[1]


def test_a_meta_file_of_an_earlier_version_is_read_and_a_run_with_nothing_to_do_says_nothing_of_time(
    ran: tuple[Run, list[Seen]], tokenizer_dir: Path
) -> None:
    run = ran[0]
    meta = run.cache.with_suffix(".meta.json")
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "time_use": [{"samples": {"count": 1}}]}))
    again = Bench(run.output_dir.parent, "http://127.0.0.1:9/v1", tokenizer_dir).run()
    assert again.code == 0, again.said
    assert "Samples waited" not in again.stdout
    assert read_records(run.result) == run.records()
