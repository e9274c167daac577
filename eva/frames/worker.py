"""The warm processes of the frame tool (see serve.py): a worker serves call after call, and one that fails is replaced.

A worker that crashes, hangs or takes too much memory is not the model's fault. After a crash, its request is made once
more. A video on which no worker lives to reply is not tried again in this run.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva.frames.tool import FrameToolError, FrameToolUnusableError

# A reply names up to 9,999 frames.
MAX_REPLY_BYTES = 2**26
# The interval at which the memory and the time of a busy worker are checked.
WATCH_S = 0.1
# A worker may have to import its packages from a slow network disk.
START_TIMEOUT_S = 300.0
# How long a killed process may take to end.
END_S = 5.0

Request = Mapping[str, Any]
Reply = Mapping[str, Any]


class WorkerLostError(Exception):
    """A worker ended in the middle of a call. The message continues the words "the frame tool"."""


class LimitExceededError(WorkerLostError):
    """The worker took too long or too much memory."""


@dataclass
class Workers:
    """Up to `count` workers, started when they are first needed. A worker whose call takes longer than `timeout_s`, or
    more than `memory_bytes` of resident memory, is killed."""

    command: Sequence[str]
    count: int
    timeout_s: float
    memory_bytes: float
    _idle: list[Process] = field(default_factory=list)
    _lost: dict[Path, str] = field(default_factory=dict)  # videos, and why they are not tried again
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.count)

    async def ask(self, video: Path, request: Request) -> Reply:
        """The reply to a request about `video`. Raises FrameToolError where no worker lives to reply, now or before;
        FrameToolUnusableError."""
        async with self._slots:
            if video in self._lost:
                raise FrameToolError(f"{self._lost[video]}; it is not tried again in this run")
            again = ""
            while True:
                self._idle = [worker for worker in self._idle if worker.returncode is None]
                worker = self._idle.pop() if self._idle else await self._start_worker()
                try:
                    reply = await _ask(worker, request, self.timeout_s, self.memory_bytes)
                except WorkerLostError as lost:
                    if not again and not isinstance(lost, LimitExceededError):
                        again = "again "
                        continue
                    self._lost[video] = f"the frame tool {again}{lost} on {video}"
                    raise FrameToolError(self._lost[video]) from lost
                self._idle.append(worker)
                return reply

    async def _start_worker(self, *, again: bool = True) -> Process:
        """A new worker that has answered. Raises FrameToolUnusableError: no video is the cause of its end."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=MAX_REPLY_BYTES,
                start_new_session=True,  # Ctrl-C in the terminal is for the harness
            )
            await _ask(process, {}, START_TIMEOUT_S, math.inf)
        except (OSError, WorkerLostError) as error:
            if again:  # the first one may have been killed from outside
                return await self._start_worker(again=False)
            reason = error.strerror if isinstance(error, OSError) else f"it {error}"
            raise FrameToolUnusableError(f"the frame tool {self.command[-2]} cannot be started: {reason}") from error
        return process

    async def close(self) -> None:
        """End the idle workers. Call it after the last call has ended."""
        while self._idle:
            await kill_process(self._idle.pop())


async def _ask(worker: Process, request: Request, timeout_s: float, memory_bytes: float) -> Reply:
    """The reply to one request. Where there is none, the process is ended; raises WorkerLostError."""
    exchange = asyncio.ensure_future(_exchange(worker, request))
    deadline = time.monotonic() + timeout_s
    try:
        while not (await asyncio.wait({exchange}, timeout=WATCH_S))[0]:
            if time.monotonic() > deadline:
                raise LimitExceededError(f"took over {timeout_s:g} s")
            if resident_bytes(worker.pid) > memory_bytes:
                raise LimitExceededError(f"took over {memory_bytes / 2**20:g} MB of memory")
        return exchange.result()
    except BaseException:  # a cancelled call, too: the next one would take its late reply for its own
        exchange.cancel()
        await kill_process(worker)
        raise


async def _exchange(worker: Process, request: Request) -> Reply:
    if worker.stdin is None or worker.stdout is None or worker.stderr is None:
        raise ValueError("a worker needs pipes")
    with suppress(ConnectionError):  # the worker has ended, which is seen below
        worker.stdin.write(json.dumps(request).encode() + b"\n")
        await worker.stdin.drain()
    line = await worker.stdout.readline()
    if line.endswith(b"\n"):
        reply: Reply = json.loads(line)
        return reply
    said = (await worker.stderr.read()).decode(errors="replace").strip().splitlines()
    status = await worker.wait()
    raise WorkerLostError(f"ended (exit status {status}): {said[-1] if said else 'it gave no reason'}")


async def kill_process(process: Process) -> None:
    """End a process. A process that waits for a dead disk cannot end: it is left behind, and ends when the disk
    answers."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await process.wait()


def resident_bytes(pid: int) -> int:
    """The memory that a process holds now; 0 where the system does not say it, as of a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
