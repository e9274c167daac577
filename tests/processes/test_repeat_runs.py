"""eval-eva.py --repeat, --temperature, --seed and --shuffle, and accuracy.py over the results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, called, make_video, read_records, row
from scripted_server import Script, ScriptedServer

COUNT = 6


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Script(lambda key: ["<answer>B</answer>"])) as found:
        yield found


@pytest.fixture
def bench(tmp_path: Path, tokenizer_dir: Path, server: ScriptedServer) -> Bench:
    bench = Bench(tmp_path, server.base_url, tokenizer_dir)
    for number in range(2):
        make_video(bench.videos / f"{number}.mp4", frames=4)
    bench.write([row(f"question {n}", video=f"{n % 2}.mp4") for n in range(COUNT)])
    return bench


def accuracy(*arguments: object, code: int = 0) -> str:
    done = called("accuracy.py", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def asked(server: ScriptedServer) -> Counter[Any]:
    """The number of requests per seed; what was asked so far is forgotten."""
    seeds = Counter(seen.body.get("seed") for seen in server.journal.seen)
    server.journal.seen.clear()
    return seeds


def test_each_run_has_files_and_a_seed_of_its_own_and_goes_on_where_it_was(
    bench: Bench, server: ScriptedServer, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    flags = ("--temperature", "0.7", "--seed", "5", "--json", str(figures))
    first = bench.run("--repeat", "2", *flags)
    assert first.code == 0, first.said
    assert {seen.body["temperature"] for seen in server.journal.seen} == {0.7}
    assert asked(server) == {5: COUNT, 6: COUNT}
    results = [bench.output_dir / f"result_own.{k}.jsonl" for k in (1, 2)]
    for k, path in enumerate(results):
        assert len(read_records(path)) == COUNT
        settings = json.loads(path.with_suffix(".meta.json").read_text())["settings"]
        assert (settings["temperature"], settings["seed"]) == (0.7, 5 + k)
        assert json.loads((tmp_path / f"figures.{k + 1}.json").read_text())["total"] == COUNT
    assert not bench.result.exists()

    cache = bench.output_dir / "cache_own.2.jsonl"
    cache.write_bytes(b"".join(cache.read_bytes().splitlines(keepends=True)[:4]))
    second = bench.run("--repeat", "3", *flags)
    assert second.code == 0, second.said
    assert asked(server) == {6: 2, 7: COUNT}, "what is in a cache is not asked again"

    command = second.stdout.splitlines()[-1].partition("accuracy.py ")[2].split()
    said = accuracy(*command)
    assert "Runs of one setting: 3, questions in all of them: 6" in said
    assert "Accuracy in percent: mean 100.00, standard deviation 0.00, range 100.00 to 100.00" in said
    content = json.loads(accuracy(*results, "--repeats", "--json"))
    assert (content["runs"], content["common"], content["accuracy"]["mean"]) == (2, COUNT, 1.0)
    assert "McNemar" in accuracy(*results), "two files are compared, unless they are said to be repeats"


def test_without_the_flags_a_request_and_the_settings_are_those_of_before(bench: Bench, server: ScriptedServer) -> None:
    run = bench.run()
    assert run.code == 0, run.said
    assert {tuple(seen.body) for seen in server.journal.seen} == {("messages", "model", "max_tokens", "temperature")}
    assert {repr(seen.body["temperature"]) for seen in server.journal.seen} == {"0.0"}
    settings = json.loads(run.result.with_suffix(".meta.json").read_text())["settings"]
    assert not settings.keys() & {"temperature", "seed"}, "a cache of an earlier version goes on"
    run.cache.write_bytes(b"".join(run.cache.read_bytes().splitlines(keepends=True)[:4]))
    other = bench.run("--temperature", "0.5")
    assert other.code == 2
    assert "temperature: None then, 0.5 now" in other.stderr


def test_of_a_repeat_that_has_not_finished_there_are_no_figures(bench: Bench) -> None:
    run = bench.run("--repeat", "3", "--sample", "4", "--shuffle", "1")
    assert run.code == 0, run.said
    results = [bench.output_dir / f"result_own.{k}.jsonl" for k in (1, 2, 3)]
    chosen = [[record["index"] for record in read_records(path)] for path in results]
    assert chosen[0] == chosen[1] == chosen[2] and len(chosen[0]) == 4
    results[1].write_bytes(b"".join(results[1].read_bytes().splitlines(keepends=True)[:3]))
    said = accuracy(*results, code=3)
    assert f"Partial: 3 of 4 questions have a record in {results[1]}" in said
    assert "mean" not in said
    assert json.loads(accuracy(*results, "--json", "--partial"))["to_go"] == [0, 1, 0]
