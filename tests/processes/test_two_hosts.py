"""A run on two hosts that share no disk: the network loses one of them for a minute, and then it is rebooted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import HELPERS, Bench, Run, block, call, lasting, make_video, read_whole_lines, row, wait_until
from hosts import DISK, Host, two_hosts
from ray_cluster import STORE_BYTES
from scripted_server import Script, ScriptedServer

# How long the network loses a host. It is told to give it up within seconds; with EVA_TEST_SPLIT=75 Ray has its own
# settings, by which it takes a minute.
SPLIT_S = float(os.environ.get("EVA_TEST_SPLIT", "0"))
HURRIED = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
RAY = str(Path(sys.executable).with_name("ray"))
RAY_PORT, SERVER_PORT = 6379, 8000
SERVER = HELPERS / "scripted_server.py"
VIDEOS = [f"clip {number}.mp4" for number in range(12)]
ON_ONE, ON_TWO = VIDEOS[:8], VIDEOS[4:]
COUNT = 120


def replies(number: int) -> list[dict[str, Any]]:
    """A look, and an answer that is right, or not, or none."""
    answer = ("<answer>B</answer>", "<answer>C</answer>", "I give up.")[number % 3]
    return [{"text": text, "delay_s": 0.3} for text in (block(call(0, 1 + number % 3, 2)), answer)]


def question(number: int) -> dict[str, Any]:
    return row(f"question {number}", video=VIDEOS[number * len(VIDEOS) // COUNT])


SCRIPT = {f"question {number}": replies(number) for number in range(COUNT)}


@dataclass
class Site:
    """The first host has the head, the server and the driver, and plays too."""

    one: Host
    two: Host
    bench: Bench

    def start_ray(self, host: Host, *flags: str) -> None:
        """As README says for what shall come back by itself."""
        start = [RAY, "start", *flags, f"--node-ip-address={host.address}", "--num-cpus=1", "--block",
                 f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats"]  # fmt: skip
        log = f"exec >>'{DISK}/ray.log' 2>&1; "
        loop = 'while true; do "$@"; sleep 2; done'
        host.start("bash", "-c", log + loop, "bash", *start, **({} if SPLIT_S else HURRIED))

    def start_head(self) -> None:
        self.start_ray(self.one, "--head", f"--port={RAY_PORT}", "--include-dashboard=false")

    def join_second(self) -> None:
        self.start_ray(self.two, f"--address={self.one.address}:{RAY_PORT}")

    def start_server(self) -> None:
        script = self.bench.folder / "script.json"
        script.write_text(json.dumps({"replies": SCRIPT}), encoding="utf-8")
        address = ["--host", self.one.address, "--port", str(SERVER_PORT)]
        server = self.one.start(sys.executable, str(SERVER), "--script", str(script), *address)
        assert server.stdout is not None
        self.bench.base_url = server.stdout.readline().strip()

    def start_run(self, *flags: str) -> subprocess.Popen[str]:
        self.bench.output_dir.mkdir(exist_ok=True)
        folders = {"video_root": f"{DISK}/videos", "frame_root": f"{DISK}/frames"}
        flags = ("--ray", f"{self.one.address}:{RAY_PORT}", "--frame-workers", "1", "--max-concurrent", "6", *flags)
        return self.one.start(*self.bench.command(*flags, **folders))

    def recorded(self, videos: list[str] = VIDEOS) -> int:
        return sum(record["videos"][0] in videos for record in read_whole_lines(self.bench.cache))

    def wait_for(self, count: int, videos: list[str] = VIDEOS) -> None:
        wait_until(lambda: self.recorded(videos) >= count, timeout_s=180)

    def wait_for_second(self) -> None:
        """It has joined the cluster."""
        wait_until(lambda: "Ray runtime started" in self.ray_log(), timeout_s=120)

    def ray_log(self) -> str:
        log = self.two.disk / "ray.log"
        return log.read_text(encoding="utf-8") if log.exists() else ""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [make_video(folder / name, frames=10 + number) for number, name in enumerate(VIDEOS)]


@pytest.fixture
def site(tmp_path: Path, tokenizer_dir: Path, videos: list[Path]) -> Iterator[Site]:
    bench = Bench(tmp_path / "bench", "", tokenizer_dir)
    bench.write(map(question, range(COUNT)))
    with two_hosts(tmp_path, bench.folder, tokenizer_dir) as (one, two):
        for host, names in ((one, ON_ONE), (two, ON_TWO)):
            (host.disk / "videos").mkdir()
            for video in videos:
                if video.name in names:
                    shutil.copy(video, host.disk / "videos")
        site = Site(one, two, bench)
        site.start_head()
        site.join_second()
        site.start_server()
        site.wait_for_second()
        yield site


def local_run(tmp_path: Path, tokenizer_dir: Path, videos: list[Path]) -> Run:
    with ScriptedServer(Script(SCRIPT, default_delay_s=0)) as server:
        bench = Bench(tmp_path / "local", server.base_url, tokenizer_dir)
        bench.write(map(question, range(COUNT)))
        for video in videos:
            (bench.videos / video.name).symlink_to(video)
        return bench.run()


def test_a_host_that_the_network_loses_and_that_is_rebooted_later_costs_no_record(
    site: Site, tmp_path: Path, tokenizer_dir: Path, videos: list[Path]
) -> None:
    only_on_two = [name for name in ON_TWO if name not in ON_ONE]
    process = site.start_run("--outage-timeout", "300")
    site.wait_for(10)
    site.two.link("down")
    cut_at = time.monotonic()
    site.wait_for(COUNT - len(only_on_two) * COUNT // len(VIDEOS), ON_ONE)
    time.sleep(max(0, cut_at + SPLIT_S - time.monotonic()))
    before = site.recorded(only_on_two)
    site.two.link("up")
    site.wait_for(before + 5, only_on_two)
    site.two.power_off()
    site.two.boot()
    site.join_second()
    run = site.bench.finish(process, timeout_s=300)
    local = local_run(tmp_path, tokenizer_dir, videos)
    assert run.code == 0, run.said + site.ray_log()
    assert sorted(record["index"] for record in read_whole_lines(site.bench.cache)) == list(range(COUNT))
    assert [lasting(record) for record in run.records()] == [lasting(record) for record in local.records()]
    assert re.search(r"images as file .*every server", run.stderr), run.stderr
    assert re.search(r"samples wait for a node with their videos to join, at most 300 s", run.stderr), run.stderr
    assert re.search(r"images as base64 \(.*cannot open a frame of this node", run.stderr), run.stderr
