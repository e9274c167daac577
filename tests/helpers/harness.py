"""What the tests of the whole harness share: videos with the frame number in the pixels, question sets, and runs
of eval-eva.py as a process."""

from __future__ import annotations

import importlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from eva.run.options import Options

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
HELPERS = ROOT / "tests" / "helpers"
GOLDEN = ROOT / "tests" / "golden"
EVAL = ROOT / "eval-eva.py"
FRAME_TOOL = ROOT / "select_frame_fallback.py"
GREY_STEP = 2


# --- videos


def make_video(
    path: Path, *, frames: int = 60, fps: int = 10, width: int = 96, height: int = 64, codec: str = "libx264"
) -> Path:
    """Frame n is plain grey of level n * GREY_STEP, but for a darker corner, so that a flip would show."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = 12
        for number in range(frames):
            picture = np.full((height, width, 3), number * GREY_STEP, np.uint8)
            picture[: height // 4, : width // 4] //= 2
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


# --- question sets


def row(
    key: str, *, video: str = "clip.mp4", truth: str = "B", system: str | None = None, **more: Any
) -> dict[str, Any]:
    """One annotation line; `key` is what the scripted server knows the question by."""
    turns = [{"role": "system", "content": system}] if system is not None else []
    turns.append({"role": "user", "content": f"[[{key}]] What is shown?\nA. one\nB. two"})
    return {"videos": [video], "prompt": turns, "reward_model": {"ground_truth": truth}, **more}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def call(start: Any, end: Any, nframes: Any, resize: Any = 1.0, /, *, key: str = "arguments", **more: Any) -> str:
    arguments = {"start_time": start, "end_time": end, "nframes": nframes, "resize": resize, **more}
    return json.dumps({"tool": "frame_select", key: arguments})


def block(*calls: str) -> str:
    return "Plan.\n<tool_call>" + "\n".join(calls) + "</tool_call>"


# --- runs of eval-eva.py


@dataclass(frozen=True)
class Run:
    """A finished process and the files that it was to write."""

    code: int
    stdout: str
    stderr: str
    cache: Path
    result: Path

    @property
    def output_dir(self) -> Path:
        return self.result.parent

    @property
    def said(self) -> str:
        return self.stdout + self.stderr

    def records(self) -> list[dict[str, Any]]:
        return read_records(self.result)

    def by_index(self) -> dict[int, dict[str, Any]]:
        return {record["index"]: record for record in self.records()}

    def record(self) -> dict[str, Any]:
        (only,) = self.records()
        return only


def read_records(path: Path) -> list[dict[str, Any]]:
    # Not splitlines(): a reply may hold any of the line ends of Unicode, and JSON lines end at \n alone.
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n")[:-1]]


def read_whole_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a cache that may be in the middle of a write."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace")
    return [json.loads(line) for line in text.split("\n")[:-1]]


QUIET = {"HF_HUB_OFFLINE": "1", "NO_PROXY": "*", "no_proxy": "*", "PYTHONUNBUFFERED": "1"}
os.environ.update(QUIET)  # for the commands that are called in this process, before they import anything


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


@dataclass
class Bench:
    """A place for runs: videos, one question set, a tokenizer and a server's address."""

    folder: Path
    base_url: str
    tokenizer: Path
    dataset: str = "own"
    videos: Path = field(init=False)

    def __post_init__(self) -> None:
        self.videos = self.folder / "videos"
        self.videos.mkdir(parents=True, exist_ok=True)

    @property
    def jsonl(self) -> Path:
        return self.folder / "questions.jsonl"

    @property
    def output_dir(self) -> Path:
        return self.folder / "out"

    @property
    def frame_root(self) -> Path:
        return self.folder / "frames"

    @property
    def cache(self) -> Path:
        return self.output_dir / f"cache_{self.dataset}.jsonl"

    @property
    def result(self) -> Path:
        return self.output_dir / f"result_{self.dataset}.jsonl"

    def write(self, rows: Iterable[Mapping[str, Any]]) -> Path:
        return write_rows(self.jsonl, rows)

    def settings(self) -> dict[str, str]:
        return {
            "--dataset": self.dataset,
            "--jsonl": str(self.jsonl),
            "--video-root": str(self.videos),
            "--base-url": self.base_url,
            "--tokenizer": str(self.tokenizer),
            "--frame-root": str(self.frame_root),
            "--output-dir": str(self.output_dir),
        }

    def options(self, **settings: Any) -> Options:
        """The settings of a run here, for what is called below the command."""
        ours = {name[2:].replace("-", "_"): value for name, value in self.settings().items()}
        return Options(**{**ours, **settings})

    def command(self, *flags: str, **settings: str | None) -> list[str]:
        """`base_url=None` leaves --base-url out; another value replaces it."""
        changed = {"--" + name.replace("_", "-"): value for name, value in settings.items()}
        chosen = {**self.settings(), **changed}
        pairs = [part for name, value in chosen.items() if value is not None for part in (name, value)]
        return [sys.executable, str(EVAL), *pairs, *flags]

    def start(self, *flags: str, **settings: str | None) -> subprocess.Popen[str]:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            self.command(*flags, **settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=self.folder,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], *, timeout_s: float = 120) -> Run:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            kill_group(process)
            stdout, stderr = process.communicate()
            pytest.fail(f"the run did not end within {timeout_s} s\n{stdout[-2000:]}\n{stderr[-4000:]}")
        return Run(process.returncode, stdout, stderr, self.cache, self.result)

    def run(self, *flags: str, typed: bytes = b"", timeout_s: float = 120, **settings: str | None) -> Run:
        """The command in this process: all of it but the interpreter's start and the process's end."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        words = self.command(*flags, **settings)[2:]
        done = called("eval-eva.py", *words, cwd=self.folder, typed=typed, timeout_s=timeout_s)
        return Run(done.returncode, done.stdout, done.stderr, self.cache, self.result)

    def run_process(self, *flags: str, timeout_s: float = 120, **settings: str | None) -> Run:
        return self.finish(self.start(*flags, **settings), timeout_s=timeout_s)


# What the scripts call.
COMMANDS = {
    "eval-eva.py": "run",
    "accuracy.py": "score",
    "report.py": "report",
    "data/convert.py": "convert",
    "data/fetch.py": "fetch",
}


def called(
    script: str, *arguments: object, cwd: Path | None = None, typed: bytes = b"", timeout_s: float = 120, **more: Any
) -> subprocess.CompletedProcess[str]:
    """A script's command, called in this process and in the folder `cwd`. `typed` comes through a pipe; `more` is for
    its `main`."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"the command did not end within {timeout_s} s: {stderr.getvalue()[-4000:]}")

    argv = [str(ROOT / script), *map(str, arguments)]
    main = importlib.import_module(f"eva.commands.{COMMANDS[script]}").main
    stdout, stderr = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(math.ceil(timeout_s))
    stdin = sys.stdin
    end, other_end = os.pipe()
    os.write(other_end, typed)
    os.close(other_end)
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr), chdir(cwd or Path.cwd()), os.fdopen(end) as sys.stdin:
            code = main(argv, **more)
    except SystemExit as exited:
        code = int(exited.code or 0)
    finally:
        sys.stdin = stdin
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(argv, code, stdout.getvalue(), stderr.getvalue())


def kill_group(process: subprocess.Popen[Any]) -> None:
    """SIGKILL to the run and to the frame tools that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def beside(act: Callable[[], object]) -> Iterator[None]:
    """`act` happens in a thread, while the run of the block goes on."""
    with ThreadPoolExecutor(1) as thread:
        acting = thread.submit(act)
        yield
        acting.result()


def send_signals(*numbers: int, pause_s: float = 0.3) -> None:
    """To the run in this process, as a terminal would."""
    for number in numbers:
        uncaught = signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
        assert not uncaught, "no run is there to catch it"
        os.kill(os.getpid(), number)
        time.sleep(pause_s)


def lasting(value: Any) -> Any:
    """A record without times and places of frames; a node's disk is called as that of a local run."""
    if isinstance(value, Mapping):
        return {key: lasting(inner) for key, inner in value.items() if key not in ("seconds", "waited", "frames")}
    if isinstance(value, str):
        return re.sub(r"/\S*?/videos/", "/videos/", value)
    return [lasting(inner) for inner in value] if isinstance(value, list) else value


def wait_until(true: Callable[[], bool], *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s} s in vain")
        time.sleep(0.01)


def only_sentence(stderr: str) -> str:
    """The one line that a refused run may say on stderr, beside what it is; a traceback or a second line fails."""
    said = (line for line in stderr.splitlines() if line.strip() and " to go; model " not in line)
    lines = [line for line in said if not is_library_noise(line)]
    assert "Traceback" not in stderr, stderr
    assert len(lines) == 1, stderr
    return lines[0]


def is_library_noise(line: str) -> bool:
    """transformers says on import that it found no PyTorch."""
    return "PyTorch was not found" in line
