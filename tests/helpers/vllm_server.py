"""A real vLLM on the CPU, as a process of its own, serving the demo's model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-server" / "bin" / "python"
MODEL = ROOT / "demo" / "model"
NAME = "eva-demo"
START_TIMEOUT_S = 420
MAX_MODEL_LEN = 8192


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class VllmServer:
    """`flags` go to `vllm serve`; `log` takes what it says."""

    log: Path
    flags: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self.port = self.port or free_port()
        command = [str(PYTHON), str(PYTHON.with_name("vllm")), "serve", str(MODEL), "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--served-model-name", NAME, "--enforce-eager"]
        command += ["--max-model-len", str(MAX_MODEL_LEN), "--mm-processor-cache-gb", "1", *self.flags]
        quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **quiet},
                start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Until it lists its models; fails the test with the end of the log."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"vLLM did not start: {self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(1)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/models", timeout=5) as reply:  # noqa: S310  an address of ours
                return bool(reply.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def kill(self) -> None:
        """SIGKILL to all its processes, as the kernel does when memory runs out."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
