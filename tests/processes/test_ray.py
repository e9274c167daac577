"""Runs on a Ray cluster of several nodes: the records are those of a local run, whatever becomes of the nodes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_replies import OWN_AGENT, native, window
from harness import (
    Bench,
    Run,
    block,
    call,
    environment,
    lasting,
    make_video,
    only_sentence,
    read_whole_lines,
    row,
    wait_until,
)
from killable import KillableServer, killable
from ray_cluster import DISK, Nodes, processes_on, ray_cluster
from scripted_server import Script, ScriptedServer

from eva.frames.store import video_folder
from eva.run.schedule import LOSSES
from eva.video.container import VideoFile

ANSWER = "<answer>B</answer>"
VIDEOS = 30
COUNT = 300
ON_NODES = {"video_root": f"${DISK}/videos", "frame_root": f"${DISK}/frames"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """They differ in length, so that no two have the same record."""
    folder = tmp_path_factory.mktemp("videos")
    return [make_video(folder / f"clip {number}.mp4", frames=10 + number) for number in range(VIDEOS)]


@pytest.fixture(scope="module")
def _quiet_ray() -> Iterator[None]:
    """No word about this cluster leaves the machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(RAY_USAGE_STATS_ENABLED="0").items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, _quiet_ray: None, videos: list[Path]) -> Iterator[Nodes]:
    """Two nodes; what both of them have are clips 10 to 14 and 20 to 24; clip 29 has none of them."""
    with ray_cluster(tmp_path_factory.mktemp("nodes")) as nodes:
        nodes.add("second", videos[10:29])
        nodes.add("third", videos[:15] + videos[20:25])
        yield nodes


@pytest.fixture
def bench_at(tmp_path: Path, tokenizer_dir: Path, videos: list[Path]) -> Callable[..., Bench]:
    def make(base_url: str, name: str = "bench") -> Bench:
        bench = Bench(tmp_path / name, base_url, tokenizer_dir)
        for video in videos:
            (bench.videos / video.name).symlink_to(video)
        return bench

    return make


def on_ray(bench: Bench, nodes: Nodes, *flags: str, **settings: str) -> subprocess.Popen[str]:
    return bench.start("--ray", nodes.address, "--frame-workers", "1", *flags, **{**ON_NODES, **settings})


def recorded(bench: Bench) -> list[int]:
    return [record["index"] for record in read_whole_lines(bench.cache)]


def where_played(run: Run, nodes: Nodes) -> dict[str, Counter[str]]:
    """Of each video, how many samples took frames on which node."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in run.records():
        for round_ in record["trajectory"]:
            for path in {frame for one in round_["calls"] for frame in one["frames"][:1]}:
                found[record["videos"][0]][Path(path).relative_to(nodes.folder).parts[0]] += 1
    return found


def left_on(nodes: Nodes, name: str) -> dict[int, str]:
    return processes_on(nodes.disk(name), "ray::Node", "select_frame")


# --- agents


@pytest.mark.parametrize("agent", ["tools", "mine.py:MyAgent"])
def test_an_agent_plays_on_the_nodes_as_it_does_here(agent: str, nodes: Nodes, bench_at: Callable[..., Bench]) -> None:
    """The file of one's own, and what it reads beside it, are only where the run starts."""
    look = native(window())
    with ScriptedServer(Script(lambda key: [look, "B"] if agent == "tools" else ["B"])) as server:
        bench, local = bench_at(server.base_url), bench_at(server.base_url, "local")
        for one in (bench, local):
            one.write([row(f"question {number}", video=f"clip {10 + number}.mp4") for number in range(4)])
            read = "assert Path(__file__).with_name('a.txt').read_text() == WORD"
            beside = f"from pathlib import Path\nfrom words import WORD\n{read}\n"
            (one.folder / "mine.py").write_text(f"{beside}{OWN_AGENT}", encoding="utf-8")
            (one.folder / "words.py").write_text("WORD = 'look'\n", encoding="utf-8")
            (one.folder / "a.txt").write_text("look", encoding="utf-8")
        run = bench.finish(on_ray(bench, nodes, "--agent", agent, tokenizer="none"))
        here = local.run("--agent", agent, tokenizer="none")
    assert (run.code, here.code) == (0, 0), run.said + here.said
    told = [{**lasting(record), "messages": ""} for record in run.records()]
    assert told == [{**lasting(record), "messages": ""} for record in here.records()]
    assert {(record["agent"], record["answer"]) for record in run.records()} == {(agent, "B")}


# --- three nodes, one dies, one comes


def mixed_replies(key: str) -> list[Any]:
    """Every way that a sample can end, most of them after a look."""
    number = int(key.split()[1])
    look = block(call(0, 1 + number % 3, 2))
    endings: list[list[Any]] = [
        [look, ANSWER],
        [look, "<answer>C</answer>"],
        [look, "I give up."],
        [block(call("x", 1, 2))],
        [look, {"status": 400, "message": "too long"}],
    ]
    ending = endings[number % 7 if number % 7 < 5 else 0]
    return [reply if isinstance(reply, dict) else {"text": reply} for reply in ending]


def mixed_rows() -> list[dict[str, Any]]:
    """Ten questions a video; the last video is nowhere."""
    names = [f"clip {number}.mp4" for number in range(VIDEOS - 1)] + ["nowhere.mp4"]
    return [row(f"question {number}", video=names[number * VIDEOS // COUNT]) for number in range(COUNT)]


def test_300_samples_on_three_nodes_of_which_one_is_killed_and_one_added_have_the_records_of_a_local_run(
    nodes: Nodes, bench_at: Callable[..., Bench], videos: list[Path]
) -> None:
    only_on_second = videos[25:28]
    nodes.add("first", videos[:20])
    at_work = nodes.disk("fourth") / "frames" / "store"

    def replies(key: str) -> list[Any]:
        """Slow after the death until the new node has cut a frame, or a slow machine would be through before that."""
        waiting = int(key.split()[1]) >= 60 and not at_work.exists()
        return [{**reply, "delay_s": 2.0 if waiting else 0.1} for reply in mixed_replies(key)]

    with ScriptedServer(Script(replies, ranks=4)) as server, ScriptedServer(Script(mixed_replies)) as local_server:
        bench, local_bench = bench_at(server.base_url), bench_at(local_server.base_url, "local")
        for one in (bench, local_bench):
            one.write(mixed_rows())
        process = on_ray(bench, nodes)
        wait_until(lambda: len(recorded(bench)) >= 60, timeout_s=120)
        nodes.kill("first")
        nodes.add("fourth", videos)
        run = bench.finish(process, timeout_s=240)
        local = local_bench.run("--frame-workers", "1")
        asked, asked_locally = server.journal.keys(), local_server.journal.keys()
        ranks = {key: {seen.rank for seen in server.journal.of(key) if seen.named_rank} for key in asked}
    nodes.kill("fourth")
    assert run.code == 0, run.said
    assert sorted(recorded(bench)) == list(range(COUNT)), "each once, also in the cache"
    assert [lasting(record) for record in run.records()] == [lasting(record) for record in local.records()]
    assert sum(asked.values()) <= sum(asked_locally.values()) + 30 * 2, (
        "only what the node had under way is asked again"
    )
    assert all(ranks.values()) and sum(len(kept) > 1 for kept in ranks.values()) <= 30, "a sample keeps to its rank"
    played = where_played(run, nodes)
    assert {node for counts in played.values() for node in counts} == {"first", "second", "third", "fourth"}
    assert all("first" not in played[video.name] and "third" not in played[video.name] for video in only_on_second)
    assert sum(len(counts) == 1 for counts in played.values()) > VIDEOS // 2, "most videos are cut on one node"
    assert len(re.findall(r"was lost: .* start again elsewhere", run.stderr)) == 1, run.stderr
    lines = [line for line in re.split(r"[\r\n]+", run.stderr) if line.strip() and not line.startswith("own ")]
    assert all(line.startswith("eval-eva.py: ") for line in lines if "PyTorch" not in line), lines


# --- a node is lost, and with it what only it had


def wait_for_line(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


def test_what_only_a_lost_node_has_is_waited_for_as_long_as_the_run_was_told_to_and_ctrl_c_ends_that_at_once(
    nodes: Nodes, bench_at: Callable[..., Bench], videos: list[Path]
) -> None:
    """Two runs at a time, of which one waits for seconds, the other one until it is told to end."""
    names = ["clip 29.mp4"] * 8 + ["clip 12.mp4"] * 20
    script = Script(lambda key: [{"text": ANSWER, "delay_s": 60 if int(key.split()[1]) < 8 else 0.2}])
    nodes.add("lone", videos[29:])
    with ScriptedServer(script) as server:
        patient, brief = bench_at(server.base_url, "patient"), bench_at(server.base_url, "brief")
        for bench in (patient, brief):
            bench.write(row(f"question {number}", video=name) for number, name in enumerate(names))
        waiting = on_ray(patient, nodes, "--max-concurrent", "6", "--grace", "300")
        process = on_ray(brief, nodes, "--max-concurrent", "6", "--outage-timeout", "8")
        wait_until(lambda: len(recorded(patient)) >= 2 and len(recorded(brief)) >= 2, timeout_s=120)
        nodes.kill("lone")
        wait_for_line(waiting, "samples wait for a node with their videos to join, at most 1800 s")
        wait_until(lambda: len(recorded(patient)) == 20, timeout_s=120)
        waiting.send_signal(signal.SIGINT)
        interrupted = patient.finish(waiting, timeout_s=100)
        run = brief.finish(process, timeout_s=100)
    assert interrupted.code == 130, interrupted.said
    assert sorted(recorded(patient)) == list(range(8, 28)), "what waited stays unrecorded, for the next run"
    assert run.code == 1, run.said
    assert "no node that can run the waiting samples has joined for 8 s; the node" in run.stderr
    assert sorted(recorded(brief)) == list(range(8, 28))


def test_a_sample_that_kills_its_node_each_time_is_given_up_and_no_other_and_no_server_is_blamed(
    nodes: Nodes, bench_at: Callable[..., Bench]
) -> None:
    """Its video is on one node alone, so that no node but its own dies of it."""
    killed: Counter[str] = Counter()

    def kill_node(server: str) -> Callable[[str], list[Any]]:
        def replies(key: str) -> list[Any]:
            if key != "question 3":
                return [{"text": ANSWER, "delay_s": 0.5}]
            for pid in processes_on(nodes.disk("second"), "ray::Node"):
                os.kill(pid, signal.SIGKILL)
            killed[server] += 1
            return [{"text": ANSWER, "delay_s": 5}]

        return replies

    with ScriptedServer(Script(kill_node("one"))) as one, ScriptedServer(Script(kill_node("two"))) as two:
        bench = bench_at(f"{one.base_url},{two.base_url}")
        bench.write(row(f"question {number}", video="clip 26.mp4") for number in range(6))
        run = bench.finish(on_ray(bench, nodes, "--max-concurrent", "3"), timeout_s=240)
    assert run.code == 3, run.said
    by_index = run.by_index()
    assert {by_index[number]["stop_reason"] for number in (0, 1, 2, 4, 5)} == {"answer_found"}
    assert by_index[3]["failure"] == "infrastructure"
    assert "NodeGoneError: the node" in by_index[3]["error"]
    assert killed.total() == LOSSES + 1


# --- the driver is killed, and the server goes down meanwhile


def test_a_run_whose_server_and_driver_die_leaves_nothing_behind_and_goes_on(
    nodes: Nodes, bench_at: Callable[..., Bench], tmp_path: Path
) -> None:
    count = 60
    script = {"replies": {"*": [{"text": block(call(0, 1, 2))}, {"text": ANSWER, "delay_s": 0.3}]}}
    server = KillableServer(tmp_path / "server", script)
    with killable(server):
        bench = bench_at(server.base_url)
        bench.write(row(f"question {number}", video=f"clip {20 + number // 12}.mp4") for number in range(count))
        process = on_ray(bench, nodes, "--max-concurrent", "6")
        wait_until(lambda: len(recorded(bench)) >= 6, timeout_s=120)
        server.kill()
        server.start()
        wait_until(lambda: len(recorded(bench)) >= 18, timeout_s=120)
        assert left_on(nodes, "second"), "there is something to leave behind"
        process.kill()
        process.communicate()
        wait_until(lambda: not left_on(nodes, "second") and not left_on(nodes, "third"))
        kept, asked = recorded(bench), Counter(server.asked())
        run = bench.finish(on_ray(bench, nodes, "--max-concurrent", "6"), timeout_s=240)
        asked_again = Counter(server.asked()) - asked
    assert run.code == 0, run.said
    assert sorted(recorded(bench)) == list(range(count))
    assert [record["stop_reason"] for record in run.records()] == ["answer_found"] * count
    assert not {f"question {index}" for index in kept} & set(asked_again), "what is recorded is not asked again"


# --- a disk that is full, a server that cannot read the nodes' disks


def test_without_a_shared_file_system_images_travel_themselves_and_a_full_disk_is_played_around(
    nodes: Nodes, bench_at: Callable[..., Bench]
) -> None:
    # Where the frames of each video should be is a file: nothing can be written there.
    for video in (nodes.disk("third") / "videos").iterdir():
        folder = video_folder(nodes.disk("third") / "frames", VideoFile.of(video))
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("", encoding="utf-8")
    script = Script(lambda key: [block(call(0, 1, 2)), ANSWER], may_read=False, api_key="sesame")
    with ScriptedServer(script) as server:
        bench = bench_at(server.base_url)
        bench.write(row(f"question {number}", video=f"clip {10 + number % 4}.mp4") for number in range(12))
        run = bench.finish(on_ray(bench, nodes, "--api-key", "sesame"), timeout_s=240)
        urls = {url[:10] for seen in server.journal.seen for url in seen.urls}
    assert run.code == 0, run.said
    assert [record["stop_reason"] for record in run.records()] == ["answer_found"] * 12
    assert urls == {"data:image"}
    assert re.search(r"images as base64 \(.*cannot open a frame of this node", run.stderr), run.stderr
    assert re.search(r"on the node .* cannot .*start again elsewhere", run.stderr), run.stderr
    assert "sesame" not in run.said
    assert set.union(*map(set, where_played(run, nodes).values())) == {"second"}


# --- what a run on a cluster refuses


def test_a_local_run_does_not_import_ray_and_without_it_the_flag_says_what_to_install(
    bench_at: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ScriptedServer(Script(lambda key: [ANSWER])) as server:
        bench = bench_at(server.base_url)
        bench.write([row("question", video="clip 0.mp4")])
        run = bench.run_process()
        refused = bench.run_process("--ray", "--new-cache", "--yes")
    assert run.code == 0, run.said
    assert refused.code == 2
    assert "pip install -r requirements/ray.txt" in only_sentence(refused.stderr)
    assert recorded(bench) == [0], "nothing was changed"


def test_an_address_where_no_cluster_is_ends_the_run_in_time_with_a_sentence(bench_at: Callable[..., Bench]) -> None:
    with ScriptedServer(Script(lambda key: [ANSWER])) as server:
        bench = bench_at(server.base_url)
        bench.write([row("question", video="clip 0.mp4")])
        run = bench.run_process("--ray", "127.0.0.1:9", timeout_s=60)
    assert run.code == 2, run.said
    assert "no Ray cluster can be joined at 127.0.0.1:9" in only_sentence(run.stderr)
