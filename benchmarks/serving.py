"""What a run costs on a real vLLM with two data-parallel ranks, by how its samples come to the ranks.

All of it is on the CPU of this machine: the servers with the demo's tiny model, the harness, the frames. The caches of
the servers and the store of frames are empty before each measurement.

    bash demo/install_server.sh
    nice python benchmarks/serving.py [--questions 200] [--conversations 60] [--tool-questions 40]      prints tables
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from vllm_server import MODEL, VllmServer  # noqa: E402

SERVER_FLAGS = (
    "--limit-mm-per-prompt", '{"image": 9999, "video": 0}', "--enable-prompt-tokens-details",
    # vLLM takes 128 on the CPU, and a prompt of the demo has hardly more tokens than that.
    "--block-size", "32",
)  # fmt: skip
WARM_UP = ("--agent", "uniform", "--nframes", "1", "--frame-tokens", "64", "--sample", "16")
FOUR_ROUNDS = ("--agent", f"{HERE / 'four_rounds.py'}:FourRounds", "--max-turns", "4", "--max-tokens", "32")
PER_CALL = ("--frame-tool", str(HERE / "baseline_tool.py"))
HEAD = "samples | per minute | tokens found | of possible | front end ms | ranks ms | harness ms | load |"
# With it, a server can be told to empty its caches.
DEV_MODE = {"VLLM_SERVER_DEV_MODE": "1"}
# Each process before the ranks has a cache of prepared images, and empties its own if it gets the request.
RESETS = 20
# vLLM calls the processes of a rank so.
RANK = (b"VLLM::EngineCore", b"VLLM::Worker")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """Of servers since their start: prompt tokens found in caches, and CPU seconds of the ranks and before them."""

    hits: float
    front_end_s: float
    ranks_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200, help="of the demo")
    parser.add_argument("--conversations", type=int, default=60, help="of four rounds, with 20 frames")
    parser.add_argument("--tool-questions", type=int, default=40, help="of the demo, for the frame tools")
    arguments = parser.parse_args()
    subprocess.run([sys.executable, "-m", "demo.make_data"], cwd=ROOT, check=True)
    os.environ.update(DEV_MODE)
    with serving() as (one, two):
        ways = (
            ("one port, a rank per sample", one, ()),
            ("one port, the server chooses", one, ("--data-parallel-ranks", "0")),
            ("two servers", two, ()),
        )
        tools = (("this frame tool", one, ()), ("a process per call", one, PER_CALL))
        table("The demo's questions", ways, "--sample", str(arguments.questions))
        table("Four rounds, 20 frames", ways, "--sample", str(arguments.conversations), *FOUR_ROUNDS)
        table("The demo's questions", tools, "--sample", str(arguments.tool_questions))


def table(title: str, ways: Sequence[tuple[str, Place, tuple[str, ...]]], *flags: str) -> None:
    """A run for each way: its name, its servers, and its flags of the harness."""
    print(f"\n| {title} | {HEAD}\n|{'---|' * (2 + HEAD.count(' | '))}")
    for name, place, more in ways:
        place.forget()
        print(f"| {name} | {place.row(*flags, *more)} |", flush=True)


@dataclass
class Place:
    """Servers, and a folder that they may read."""

    folder: Path
    servers: list[VllmServer]
    runs: int = 0

    def row(self, *flags: str) -> str:
        """What a run with these flags costs, CPU as milliseconds per sample."""
        before = self.spent()
        figures, wall_s, harness_s = self.play(*flags)
        after = self.spent()
        tokens, count = figures["time_use"]["prompt_tokens"], figures["time_use"]["samples"]["count"]
        hits, possible = after.hits - before.hits, tokens["cacheable_share"] * tokens["total"]
        cpu_s = (after.front_end_s - before.front_end_s, after.ranks_s - before.ranks_s, harness_s)
        costs = " | ".join(f"{1000 * seconds / count:.0f}" for seconds in cpu_s)
        found = f"{hits:.0f} of {tokens['total']} | {hits / possible:.1%}"
        return f"{count} | {60 * count / wall_s:.0f} | {found} | {costs} | {os.getloadavg()[0]:.1f}"

    def play(self, *flags: str) -> tuple[dict[str, Any], float, float]:
        """One run of the harness: its figures, and wall and CPU seconds of it and of all that it started."""
        self.runs += 1
        out = self.folder / str(self.runs)
        out.mkdir(parents=True)
        command = [sys.executable, str(ROOT / "eval-eva.py"), "--dataset", "demo", "--tokenizer", str(MODEL)]
        command += ["--base-url", ",".join(server.url for server in self.servers), "--max-concurrent", "8"]
        command += ["--frame-root", str(out / "frames"), "--output-dir", str(out), "--json", f"{out}.json", *flags]
        started = time.monotonic()
        with Path(f"{out}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - started
        if status:
            raise SystemExit(f"the run failed:\n{Path(f'{out}.log').read_text()}")
        return json.loads(Path(f"{out}.json").read_text()), wall_s, usage.ru_utime + usage.ru_stime

    def forget(self) -> None:
        """Empty all caches of the servers."""
        for server in self.servers:
            ask(server, "reset_prefix_cache", b"")
            ask(server, "reset_encoder_cache", b"")
            for _ in range(RESETS):
                ask(server, "reset_mm_cache", b"")

    def spent(self) -> Spent:
        pages = "\n".join(ask(server, "metrics") for server in self.servers)
        hits = sum(map(float, re.findall(r"^vllm:prefix_cache_hits_total\S* (\S+)", pages, re.MULTILINE)))
        sums = {True: 0.0, False: 0.0}
        for is_rank, cpu_s in processes({server.process.pid for server in self.servers if server.process}):
            sums[is_rank] += cpu_s
        return Spent(hits, front_end_s=sums[False], ranks_s=sums[True])


def ask(server: VllmServer, page: str, body: bytes | None = None) -> str:
    """What it answers; with a body, to a POST."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{page}", body) as reply:
        return str(reply.read().decode())


@contextmanager
def serving() -> Iterator[tuple[Place, Place]]:
    """One server with two ranks, and two servers with one each, all warm, and stopped at the end."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        flags = (*SERVER_FLAGS, "--allowed-local-media-path", name)
        servers = [
            VllmServer(Path(name) / f"server-{number}.log", (*flags, "--data-parallel-size", ranks))
            for number, ranks in enumerate(("2", "1", "1"))
        ]
        for server in servers:
            stack.callback(server.kill)
            server.start()
        for server in servers:
            server.wait()
        places = Place(Path(name) / "one", servers[:1]), Place(Path(name) / "two", servers[1:])
        for place in places:
            place.play(*WARM_UP)
        yield places


def processes(sessions: set[int]) -> Iterator[tuple[bool, float]]:
    """Of each process of these sessions: is it a rank, and its CPU seconds."""
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split() if entry.name.isdigit() else []
            if fields and int(fields[3]) in sessions:
                title = (entry / "cmdline").read_bytes()
                yield any(word in title for word in RANK), sum(map(int, fields[11:13])) / TICKS_PER_S
        except OSError:
            continue


if __name__ == "__main__":
    main()
