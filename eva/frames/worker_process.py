"""The warm processes of the frame tool: a worker serves call after call."""

from __future__ import annotations

import asyncio
import json
import math
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from eva.frames.tool import FrameToolUnusableError, kill_process, start_failure

# A reply names up to 9,999 frames.
MAX_REPLY_BYTES = 2**26
# The interval at which the memory and the time of a busy worker are checked.
WATCH_S = 0.1
# A worker may have to import its packages from a slow network disk.
START_TIMEOUT_S = 300.0


class WorkerLostError(Exception):
    """A worker ended in the middle of a call. The message continues the words "the frame tool"."""


class LimitExceededError(WorkerLostError):
    """The worker was killed, because it took too long or too much memory."""


@dataclass(frozen=True)
class Limits:
    """The limits of one call; above them its worker is killed. `memory_bytes` is resident memory."""

    timeout_s: float
    memory_bytes: float


@dataclass
class Worker:
    """One process, and the `video` that it served last. Its standard error goes to the file `complaints`.

    While it is `in_call`, the next line that it writes belongs to that call.
    """

    process: asyncio.subprocess.Process
    complaints: IO[bytes]
    video: Path | None = None
    in_call: bool = False

    async def ask(self, request: Mapping[str, Any], limits: Limits) -> Mapping[str, Any]:
        """The reply to one request. Raises WorkerLostError."""
        self.in_call = True
        exchange = asyncio.ensure_future(self._exchange(request))
        try:
            deadline = time.monotonic() + limits.timeout_s
            while not exchange.done():
                await asyncio.wait({exchange}, timeout=WATCH_S)
                if not exchange.done():
                    self._check(limits, deadline)
            reply = exchange.result()
            self.in_call = False
            return reply
        finally:
            exchange.cancel()

    async def _exchange(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.process.stdin is None or self.process.stdout is None:
            raise ValueError("a worker needs pipes for standard input and output")
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            await self.process.stdin.drain()
        except ConnectionError:
            pass  # the worker has ended, which is seen below
        line = await self.process.stdout.readline()
        if line.endswith(b"\n"):
            return _parse_reply(line)
        raise WorkerLostError(f"ended (exit status {await self.process.wait()}): {self._last_complaint()}")

    def _check(self, limits: Limits, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise LimitExceededError(f"took over {limits.timeout_s:g} s")
        if resident_bytes(self.process.pid) > limits.memory_bytes:
            raise LimitExceededError(f"took over {limits.memory_bytes / 2**20:g} MB of memory")

    def _last_complaint(self) -> str:
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it gave no reason"

    async def kill(self) -> None:
        """End the process, also in the middle of a call."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        await kill_process(self.process)
        self.complaints.close()


@dataclass
class Workers:
    """Up to `count` workers, started when they are first needed."""

    command: Sequence[str]
    count: int
    _idle: list[Worker] = field(default_factory=list)
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.count)

    async def start(self) -> None:
        """Start one worker, to see that it can be started. Raises FrameToolUnusableError."""
        if not self._idle:
            self._idle.append(await self._start_worker())

    @asynccontextmanager
    async def one(self, video: Path) -> AsyncIterator[Worker]:
        """An idle worker, if possible the one that served `video` last. Raises FrameToolUnusableError.

        A worker that is left in the middle of a call, as by a cancelled call, is killed: the next call would take its
        late reply for its own.
        """
        async with self._slots:
            worker = self._take_idle(video) or await self._start_worker()
            worker.video = video
            try:
                yield worker
            finally:
                if worker.in_call:
                    await worker.kill()
                else:
                    self._idle.append(worker)

    def _take_idle(self, video: Path) -> Worker | None:
        self._idle = [worker for worker in self._idle if worker.process.returncode is None]
        if not self._idle:
            return None
        chosen = next((worker for worker in self._idle if worker.video == video), self._idle[-1])
        self._idle.remove(chosen)
        return chosen

    async def _start_worker(self) -> Worker:
        """A new worker that has answered. Raises FrameToolUnusableError: no video is the cause of its end."""
        try:
            return await self._try_start()
        except WorkerLostError:  # killed from outside, perhaps
            try:
                return await self._try_start()
            except WorkerLostError as lost:
                raise FrameToolUnusableError(
                    f"the frame tool {self.command[-2]} cannot be started: it {lost}"
                ) from lost

    async def _try_start(self) -> Worker:
        worker = await self._launch()
        try:
            await worker.ask({}, Limits(START_TIMEOUT_S, math.inf))
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def _launch(self) -> Worker:
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker lives
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=complaints,
                limit=MAX_REPLY_BYTES,
                start_new_session=True,  # Ctrl-C in the terminal is for the harness
            )
        except OSError as error:
            complaints.close()
            raise FrameToolUnusableError(start_failure(self.command[-2], error)) from error
        return Worker(process, complaints)

    async def close(self) -> None:
        """End the idle workers. Call it after the last call has ended."""
        while self._idle:
            await self._idle.pop().kill()


def _parse_reply(line: bytes) -> Mapping[str, Any]:
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    if isinstance(reply, dict) and reply.keys() & {"ok", "error"}:
        return reply
    raise WorkerLostError(f"gave a reply that cannot be understood: {line[:80]!r}")


def resident_bytes(pid: int) -> int:
    """The memory that a process holds now; 0 where the system does not say it, as of a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
