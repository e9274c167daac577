"""The warm processes of the frame tool (see serve.py): a worker serves call after call, and one that fails is replaced.

A worker that hangs, crashes or takes too much memory is not the model's fault. Its request is made once more. If that
fails too, the video is not tried again in this run.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from eva.frames.tool import FrameToolError, FrameToolUnusableError, kill_process, start_failure

# A reply names up to 9,999 frames.
MAX_REPLY_BYTES = 2**26
# The interval at which the memory and the time of a busy worker are checked.
WATCH_S = 0.1
# A worker may have to import its packages from a slow network disk.
START_TIMEOUT_S = 300.0

Request = Mapping[str, Any]
Reply = Mapping[str, Any]


class WorkerLostError(Exception):
    """A worker ended in the middle of a call. The message continues the words "the frame tool"."""


class LimitExceededError(WorkerLostError):
    """The worker was killed, because it took too long or too much memory."""


@dataclass(eq=False)
class Worker:
    """One process, and the `video` that it served last. Its standard error goes to the file `complaints`."""

    process: asyncio.subprocess.Process
    complaints: IO[bytes]
    video: Path | None = None

    async def ask(self, request: Request, timeout_s: float, memory_bytes: float) -> Reply:
        """The reply to one request. Raises WorkerLostError."""
        exchange = asyncio.ensure_future(self._exchange(request))
        deadline = time.monotonic() + timeout_s
        try:
            while not exchange.done():
                await asyncio.wait({exchange}, timeout=WATCH_S)
                if not exchange.done() and time.monotonic() > deadline:
                    raise LimitExceededError(f"took over {timeout_s:g} s")
                if not exchange.done() and resident_bytes(self.process.pid) > memory_bytes:
                    raise LimitExceededError(f"took over {memory_bytes / 2**20:g} MB of memory")
            return exchange.result()
        finally:
            exchange.cancel()

    async def _exchange(self, request: Request) -> Reply:
        if self.process.stdin is None or self.process.stdout is None:
            raise ValueError("a worker needs pipes for standard input and output")
        with suppress(ConnectionError):  # the worker has ended, which is seen below
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            await self.process.stdin.drain()
        line = await self.process.stdout.readline()
        if not line.endswith(b"\n"):
            status = await self.process.wait()
            self.complaints.seek(0)
            said = self.complaints.read().decode(errors="replace").strip().splitlines()
            raise WorkerLostError(f"ended (exit status {status}): {said[-1] if said else 'it gave no reason'}")
        with suppress(ValueError):
            reply = json.loads(line)
            if isinstance(reply, dict) and reply.keys() & {"ok", "error"}:
                return reply
        raise WorkerLostError(f"gave a reply that cannot be understood: {line[:80]!r}")

    async def kill(self) -> None:
        """End the process, also in the middle of a call."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        await kill_process(self.process)
        self.complaints.close()


@dataclass
class Workers:
    """Up to `count` workers, started when they are first needed. A worker whose call takes longer than `timeout_s`, or
    more than `memory_bytes` of resident memory, is killed."""

    command: Sequence[str]
    count: int
    timeout_s: float
    memory_bytes: float
    _idle: list[Worker] = field(default_factory=list)
    _lost: dict[Path, str] = field(default_factory=dict)  # videos, and why they are not tried again
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.count)

    async def start(self) -> None:
        """Start one worker, to see that it can be started. Raises FrameToolUnusableError."""
        if not self._idle:
            self._idle.append(await self._start_worker())

    async def ask(self, video: Path, request: Request, again: Request | None = None) -> Reply:
        """The reply to `request`, if possible by the worker that served `video` last.

        Where a worker is lost over it, the reply to `again`; without one, to `request`, unless it exceeded a limit.
        Raises FrameToolError where no worker lives to reply, now or before; FrameToolUnusableError.
        """
        async with self._slots:
            if video in self._lost:
                raise FrameToolError(f"{self._lost[video]}; it is not tried again in this run")
            try:
                return await self._ask_once(video, request)
            except WorkerLostError as lost:
                first, why = lost, f"the frame tool {lost} on {video}"
            if again is not None or not isinstance(first, LimitExceededError):
                try:
                    reply = await self._ask_once(video, again or request)
                    # The refusal of another request does not explain why the first one was lost.
                    if again in (None, request) or reply.get("kind") != "refused":
                        return reply
                    why = f"{why}; tried in another way, it says: {reply['error']}"
                except WorkerLostError as second:
                    why = f"{why}; tried again, it {second}"
            self._lost[video] = why
            raise FrameToolError(why) from first

    async def _ask_once(self, video: Path, request: Request) -> Reply:
        worker = self._take_idle(video) or await self._start_worker()
        worker.video = video
        try:
            reply = await worker.ask(request, self.timeout_s, self.memory_bytes)
        except BaseException:  # a cancelled call, too: the next one would take its late reply for its own
            await worker.kill()
            raise
        self._idle.append(worker)
        return reply

    def _take_idle(self, video: Path) -> Worker | None:
        self._idle = [worker for worker in self._idle if worker.process.returncode is None]
        if not self._idle:
            return None
        chosen = next((worker for worker in self._idle if worker.video == video), self._idle[-1])
        self._idle.remove(chosen)
        return chosen

    async def _start_worker(self) -> Worker:
        """A new worker that has answered. Raises FrameToolUnusableError: no video is the cause of its end."""
        for last in (False, True):  # the first one may have been killed from outside
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
            worker = Worker(process, complaints)
            try:
                await worker.ask({}, START_TIMEOUT_S, math.inf)
            except WorkerLostError as lost:
                await worker.kill()
                if last:
                    tool = self.command[-2]
                    raise FrameToolUnusableError(f"the frame tool {tool} cannot be started: it {lost}") from lost
            except BaseException:
                await worker.kill()
                raise
            else:
                return worker
        raise AssertionError("the last try returns or raises")

    async def close(self) -> None:
        """End the idle workers. Call it after the last call has ended."""
        while self._idle:
            await self._idle.pop().kill()


def resident_bytes(pid: int) -> int:
    """The memory that a process holds now; 0 where the system does not say it, as of a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
