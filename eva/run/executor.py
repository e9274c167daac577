"""What runs samples, put together from the flags: in this process, and on every node of a cluster."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from eva.agent.interface import Agent
from eva.agent.sample import SampleRunner
from eva.agent.tool_call import CallRunner
from eva.agent.transcript import Transcribe
from eva.cpus import available_cpus
from eva.dataset.items import Item
from eva.endpoint.pool import Assignment
from eva.frames.eviction import Evictor
from eva.frames.tool import FrameCounts, FrameTool, ToolSettings
from eva.frames.tools import CommandTool, WorkerTool
from eva.frames.worker import Workers
from eva.records.schema import Record
from eva.run.options import FRAME_TOOL, FrameSettings, Options


@dataclass
class Executor:
    """Runs samples in this process; `eva.cluster.driver` has another one. The schedule decides which sample runs when,
    and the pool of servers which server it asks."""

    sample_runner: SampleRunner

    @property
    def counts(self) -> FrameCounts:
        """The frames of all samples so far."""
        return self.sample_runner.call_runner.tool.counts

    def take(self, waiting: deque[Item]) -> Item | None:
        """Take the sample out of `waiting` that is next; `run` of it follows. None while no sample can run."""
        return waiting.popleft()

    async def run(self, item: Item, assignment: Assignment) -> Record:
        """The record of the item, also where it fails. Raises what SampleRunner.run raises."""
        return await self.sample_runner.run(item, assignment.complete)

    async def close(self) -> None:
        """End all processes that run for it."""
        await self.sample_runner.call_runner.tool.close()


def make_tool(settings: FrameSettings, video_root: Path) -> FrameTool:
    """The frame tool. This project's own one keeps its processes; a foreign one is started for each call, and this
    project's own one opens its videos."""
    command = ToolSettings(
        path=settings.frame_tool.absolute(),
        save_root=settings.frame_root.absolute(),
        backend=settings.backend,
        fallback=settings.fallback,
        timeout_s=settings.frame_timeout,
        factor=settings.pixels_per_token,
    )
    count = settings.frame_workers or available_cpus()
    program = [sys.executable, str(FRAME_TOOL), "--worker"]
    workers = Workers(program, count, settings.frame_timeout, settings.frame_memory_mb * 2**20)
    if not command.path.samefile(FRAME_TOOL):
        return CommandTool(command, workers, video_root, asyncio.Semaphore(count))
    cap_gb = settings.frame_cache_gb
    evictor = Evictor(settings.frame_root.absolute(), None if cap_gb is None else int(cap_gb * 1e9))
    return WorkerTool(command, workers, video_root, evictor, settings.frame_format)


def make_sample_runner(
    agent: Agent, transcribe: Transcribe, tool: FrameTool, video_root: Path, *, options: Options
) -> SampleRunner:
    """What runs one sample with these settings."""
    turns = options.max_turns or agent.settings.max_turns
    return SampleRunner(agent, CallRunner(tool, options), transcribe, video_root, turns, options.sample_timeout)
