"""The scripted server as a process that can be killed and started again at its address."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import environment

COMMAND = Path(__file__).with_name("scripted_server.py")


@dataclass
class KillableServer:
    """`script` is what scripted_server.py reads from its file; `log` holds a line a request, over all its lives."""

    folder: Path
    script: dict[str, Any]
    base_url: str = ""
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "script.json"
        file.write_text(json.dumps(self.script), encoding="utf-8")
        port = str(urlsplit(self.base_url).port or 0)
        command = [sys.executable, str(COMMAND), "--script", str(file), "--port", port, "--log", str(self.log)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()
        assert self.base_url, "the server did not start"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def asked(self) -> list[str]:
        """The questions' names, one a request."""
        if not self.log.exists():
            return []
        return [json.loads(line)["key"] for line in self.log.read_text(encoding="utf-8").split("\n")[:-1]]


@contextlib.contextmanager
def killable(*servers: KillableServer) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()
