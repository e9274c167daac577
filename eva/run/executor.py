"""What runs the samples: here in this process, or on the nodes of a cluster (eva.cluster.driver).

`make_tool` and `make_sample_runner` put its parts together from the flags, in this process and on every node.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eva.agent.interface import Agent
from eva.agent.sample import SampleRunner
from eva.agent.tool_call import CallRunner, CallSettings
from eva.agent.transcript import Transcribe
from eva.cpus import available_cpus
from eva.dataset.items import Item
from eva.endpoint.pool import Assignment
from eva.frames.command_tool import CommandTool
from eva.frames.eviction import Evictor
from eva.frames.probing import Prober
from eva.frames.tool import FrameCounts, FrameTool, ToolSettings
from eva.frames.worker_process import Limits, Workers
from eva.frames.worker_tool import WorkerTool
from eva.records.schema import Record
from eva.run.options import Options
from eva.run.schedule import first_come


class Executor(Protocol):
    """Runs samples. The schedule decides which sample runs when, and the pool of servers which server it asks."""

    @property
    def counts(self) -> FrameCounts:
        """The frames of all samples so far."""
        ...

    def take(self, waiting: deque[Item]) -> Item | None:
        """Take the sample out of `waiting` that is next; `run` of it follows. None while no sample can run."""
        ...

    async def run(self, item: Item, assignment: Assignment) -> Record:
        """The record of the item, also where it fails. Raises NodeLostError, and what SampleRunner.run raises."""
        ...

    async def close(self) -> None:
        """End all processes that run for it."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Runs samples in this process."""

    sample_runner: SampleRunner

    @property
    def counts(self) -> FrameCounts:
        """See Executor."""
        return self.sample_runner.call_runner.tool.counts

    def take(self, waiting: deque[Item]) -> Item:
        """See Executor."""
        return first_come(waiting)

    async def run(self, item: Item, assignment: Assignment) -> Record:
        """See Executor."""
        return await self.sample_runner.run(item, assignment.complete)

    async def close(self) -> None:
        """See Executor."""
        await self.sample_runner.call_runner.tool.close()


def make_tool(options: Options, *, video_root: Path, own_tool: Path) -> FrameTool:
    """The frame tool. This project's own one keeps its processes; a foreign one is started for each call, and this
    project's own one opens its videos."""
    settings = ToolSettings(
        path=options.frame_tool.absolute(),
        save_root=options.frame_root.absolute(),
        backend=options.backend,
        fallback=options.fallback,
        timeout_s=options.frame_timeout,
        factor=options.pixels_per_token,
    )
    count = options.frame_workers or available_cpus()
    workers = Workers([sys.executable, str(own_tool), "--worker"], count)
    limits = Limits(options.frame_timeout, options.frame_memory_mb * 2**20)
    prober = Prober(workers, limits, video_root)
    if not settings.path.samefile(own_tool):
        return CommandTool(settings, asyncio.Semaphore(count), prober)
    return WorkerTool(settings, workers, limits, make_evictor(options), prober, options.frame_format)


def make_evictor(options: Options) -> Evictor:
    """What keeps the frame store below its size."""
    cap_gb = options.frame_cache_gb
    return Evictor(options.frame_root.absolute(), None if cap_gb is None else int(cap_gb * 1e9))


def store_cap(tool: FrameTool) -> float:
    """The size in bytes to which the frames of a tool may grow, once it is started."""
    cap_bytes = tool.evictor.cap_bytes if isinstance(tool, WorkerTool) else None
    return math.inf if cap_bytes is None else cap_bytes


def make_sample_runner(
    agent: Agent,
    transcribe: Transcribe,
    tool: FrameTool,
    video_root: Path,
    *,
    options: Options,
    report: Callable[[str], None],
) -> SampleRunner:
    """What runs one sample with these flags."""
    return SampleRunner(
        agent=agent,
        call_runner=CallRunner(tool, call_settings(options)),
        transcribe=transcribe,
        video_root=video_root,
        max_turns=options.max_turns,
        report=report,
    )


def call_settings(options: Options) -> CallSettings:
    """How the calls of these flags are cut, labelled and sent."""
    return CallSettings(
        max_visual_tokens=options.max_visual_tokens,
        maxp=options.maxp,
        timestamps=options.timestamps,
        image_transport=options.image_transport or "file",
        pixels_per_token=options.pixels_per_token,
    )
