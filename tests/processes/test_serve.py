"""examples/serve.sh with a stand-in for vLLM: several servers on ports in a row, and a run against their range."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

from harness import HELPERS, ROOT, Bench, environment, make_video, row

# It fails on the port that the file `broken` names.
VLLM = f"""#!/usr/bin/env bash
[[ $1 == serve && $2 == "$MODEL" ]] || exit 64
while [[ $1 != --port ]]; do shift; done
echo "$CUDA_VISIBLE_DEVICES" >"gpu-$2"
[[ -e broken ]] && {{ echo "no memory"; exit 1; }}
exec {sys.executable} {HELPERS}/scripted_server.py --script script.json --port "$2" --log "asked-$2"
"""


def ports_in_a_row() -> int:
    """The first of two free ports."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            first = int(one.getsockname()[1])
            try:
                two.bind(("127.0.0.1", first + 1))
            except OSError:
                continue
            return first


def serve(folder: Path, first: int) -> subprocess.Popen[str]:
    vllm = folder / "vllm"
    vllm.write_text(VLLM, encoding="utf-8")
    vllm.chmod(0o755)
    settings = {"VLLM": str(vllm), "FIRST_PORT": str(first), "MODEL": "models/EVA", "CUDA_VISIBLE_DEVICES": "4,6"}
    return subprocess.Popen(
        ["bash", str(ROOT / "examples" / "serve.sh"), "2"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=environment(**settings), start_new_session=True,
    )  # fmt: skip


def is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def test_servers_on_ports_in_a_row_serve_a_run_and_end_with_the_script(tmp_path: Path, tokenizer_dir: Path) -> None:
    script = {"replies": {"*": [{"text": "<answer>B</answer>", "delay_s": 0.05}]}}
    (tmp_path / "script.json").write_text(json.dumps(script), encoding="utf-8")
    first = ports_in_a_row()
    process = serve(tmp_path, first)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        address = f"http://127.0.0.1:{first}-{first + 1}/v1"
        assert said == f"all 2 servers answer: --base-url {address}\n"
        bench = Bench(tmp_path / "bench", address, tokenizer_dir)
        make_video(bench.videos / "clip.mp4", frames=10)
        bench.write([row(f"question {number}") for number in range(8)])
        run = bench.run()
    finally:
        process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert run.code == 0, run.said
    asked = [(tmp_path / f"asked-{port}").read_text().count("\n") for port in (first, first + 1)]
    assert asked == [4, 4]
    assert [(tmp_path / f"gpu-{port}").read_text() for port in (first, first + 1)] == ["4\n", "6\n"]
    assert is_free(first)
    assert is_free(first + 1)


def test_a_server_that_cannot_start_ends_all_and_its_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    first = ports_in_a_row()
    _, complaint = (process := serve(tmp_path, first)).communicate(timeout=60)
    assert process.returncode == 1
    port = first if f"port {first} " in complaint else first + 1
    assert complaint == f"serve.sh: the server on port {port} cannot start: see ./vllm-{port}.log\n"
    assert (tmp_path / f"vllm-{port}.log").read_text() == "no memory\n"
