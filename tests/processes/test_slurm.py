"""examples/slurm.sh on two machines that are this one: Slurm's commands are stand-ins, Ray and the run are real."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import EVAL, ROOT, Bench, environment, make_video, read_records, read_whole_lines, row, wait_until
from ray_cluster import DISK, processes_on

MACHINES = ("127.0.0.1", "127.0.0.2")
STUBS = {
    # Starts the command where it is told: here, as the machine that it names.
    "bin/srun": """#!/usr/bin/env bash
        while [[ $1 == -* ]]; do [[ $1 == --nodelist=* ]] && machine=${1#*=}; shift; done
        export MACHINE=$machine
        exec "$@"
    """,
    "bin/scontrol": """#!/usr/bin/env bash
        [[ "$1 $2" == "show hostnames" ]] && printf '%s\\n' ${3//,/ }
    """,
    "servers/bin/vllm": f"""#!/usr/bin/env bash
        while [[ $1 != --port ]]; do shift; done
        exec {sys.executable} {ROOT}/tests/helpers/scripted_server.py --script script.json --host "$MACHINE" --port "$2"
    """,
    "batch.sh": f"""#!/usr/bin/env bash
        trap 'exit 143' TERM
        "$PYTHON" {EVAL} --dataset own --jsonl questions.jsonl --video-root videos --frame-workers 1 "$@"
    """,
}


@pytest.fixture
def job(tmp_path: Path, tokenizer_dir: Path) -> Bench:
    """The folder that a job is submitted from."""
    for name, text in STUBS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"\n {8}", "\n", text), encoding="utf-8")
        path.chmod(0o755)
    bench = Bench(tmp_path, "", tokenizer_dir)
    make_video(bench.videos / "clip.mp4", frames=10)
    bench.write(row(f"question {number}") for number in range(3000))
    script = {"replies": {"*": [{"text": "<answer>B</answer>", "delay_s": 0.3}]}}
    (tmp_path / "script.json").write_text(json.dumps(script), encoding="utf-8")
    bench.output_dir.mkdir()
    return bench


def submit(job: Bench) -> subprocess.Popen[str]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("", 0))
        two.bind(("", 0))
        ports = {"RAY_PORT": str(one.getsockname()[1]), "SERVER_PORT": str(two.getsockname()[1])}
    settings = {
        "PATH": f"{job.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(job.folder),
        "SLURM_JOB_NODELIST": ",".join(MACHINES),
        "MODEL": str(job.tokenizer),
        "HARNESS_ENV": sys.prefix,
        "SERVER_ENV": "servers",
        DISK: str(job.folder),
    }
    return subprocess.Popen(
        ["bash", str(ROOT / "examples" / "slurm.sh"), "--output-dir", "out", "--max-concurrent", "4"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=job.folder,
        env=environment(**settings, **ports), start_new_session=True,
    )  # fmt: skip


def nodes_on(job: Bench, machine: str) -> set[int]:
    return set(processes_on(job.folder, "ray::Node", MACHINE=machine))


def test_a_machine_that_is_lost_comes_back_and_a_job_that_is_told_to_end_saves_what_finished_and_stops_all_it_started(
    job: Bench,
) -> None:
    process = submit(job)
    try:
        wait_until(lambda: all(nodes_on(job, machine) for machine in MACHINES), timeout_s=120)
        wait_until(lambda: len(read_whole_lines(job.cache)) >= 8, timeout_s=120)
        before = nodes_on(job, MACHINES[1])
        for raylet in processes_on(job.folder, "/raylet ", MACHINE=MACHINES[1]):
            os.kill(raylet, signal.SIGKILL)
        wait_until(lambda: bool(nodes_on(job, MACHINES[1]) - before), timeout_s=120)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, stdout + stderr
    assert "interrupted by SIGTERM" in stderr
    assert "(of a partial run)" in stdout
    assert 8 <= len(read_records(job.result)) < 3000
    assert re.search(r"node \S+ \(\w+\): 1 frame workers, 1 of 1 videos, images as file", stderr), stderr
    assert "Token authentication is disabled" not in stderr
    wait_until(lambda: not processes_on(job.folder, "ray", "select_frame", "scripted_server"), timeout_s=20)
