"""What plays a sample, put together from the flags: in the process of the run, and on every node of a cluster."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from pathlib import Path

from eva.agent.sample import Sampler
from eva.agent.tool_call import CallRunner, CallSettings
from eva.agent.transcript import Transcribe
from eva.cpus import available_cpus
from eva.frames.command_tool import CommandTool
from eva.frames.eviction import Evictor
from eva.frames.probing import Prober
from eva.frames.tool import FrameTool, ToolSettings
from eva.frames.worker_process import Limits, Workers
from eva.frames.worker_tool import WorkerTool
from eva.run.options import Options


def make_tool(options: Options, *, own_tool: Path) -> FrameTool:
    """This project's own tool keeps its processes warm; a foreign one is started for each call, and its videos are
    looked at by this project's own."""
    settings = ToolSettings(
        path=options.frame_tool.absolute(),
        save_root=options.frame_root.absolute(),
        backend=options.backend,
        fallback=options.fallback,
        timeout_s=options.frame_timeout,
    )
    count = options.frame_workers or available_cpus()
    workers = Workers([sys.executable, str(own_tool), "--worker"], count)
    limits = Limits(options.frame_timeout, options.frame_memory_mb * 2**20)
    prober = Prober(workers, limits)
    if not settings.path.samefile(own_tool):
        return CommandTool(settings, asyncio.Semaphore(count), prober)
    return WorkerTool(settings, workers, limits, make_evictor(options), prober, options.frame_format)


def make_evictor(options: Options) -> Evictor:
    cap_gb = options.frame_cache_gb
    return Evictor(options.frame_root.absolute(), None if cap_gb is None else int(cap_gb * 1e9))


def store_cap(tool: FrameTool) -> float:
    """The size in bytes to which a tool's frames may grow, once it is started."""
    cap_bytes = tool.evictor.cap_bytes if isinstance(tool, WorkerTool) else None
    return math.inf if cap_bytes is None else cap_bytes


def make_sampler(
    transcribe: Transcribe, tool: FrameTool, video_root: Path, options: Options, report: Callable[[str], None]
) -> Sampler:
    settings = CallSettings(
        max_visual_tokens=options.max_visual_tokens,
        maxp=options.maxp,
        timestamps=options.timestamps,
        image_transport=options.image_transport or "file",
    )
    return Sampler(
        call_runner=CallRunner(tool, settings),
        transcribe=transcribe,
        video_root=video_root,
        max_turns=options.max_turns,
        report=report,
    )
