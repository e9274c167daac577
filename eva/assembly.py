"""What plays a sample, put together from the flags: in the process of the run, and on every node of a cluster."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from pathlib import Path

from eva.leases import Leases
from eva.look import Looker, LookSettings
from eva.options import Options
from eva.sample import Sampler
from eva.tool import CommandTool, FrameTool, ToolSettings
from eva.transcript import Transcribe
from eva.video import probe
from eva.workers import Limits, Workers, WorkerTool


def make_tool(options: Options, *, own_tool: Path) -> FrameTool:
    """This project's own tool keeps its processes warm; a foreign one is started for each call."""
    settings = ToolSettings(
        path=options.frame_tool.absolute(),
        save_root=options.frame_root.absolute(),
        backend=options.backend,
        fallback=options.fallback,
        timeout_s=options.frame_timeout,
    )
    count = options.frame_workers or os.cpu_count() or 1
    if not settings.path.samefile(own_tool):
        return CommandTool(settings, asyncio.Semaphore(count))
    return WorkerTool(
        settings,
        Workers([*settings.program(), "--worker"], count),
        Limits(options.frame_timeout, options.frame_memory_mb * 2**20),
        Leases(settings.save_root, int(options.frame_cache_gb * 1e9)),
        options.frame_format,
    )


def make_sampler(
    transcribe: Transcribe, tool: FrameTool, video_root: Path, options: Options, report: Callable[[str], None]
) -> Sampler:
    settings = LookSettings(
        max_visual_tokens=options.max_visual_tokens,
        maxp=options.maxp,
        timestamps=options.timestamps,
        image_transport=options.image_transport or "file",
    )
    return Sampler(
        looker=Looker(tool, settings),
        # Many questions ask of one video.
        probe=functools.lru_cache(maxsize=None)(probe),
        transcribe=transcribe,
        video_root=video_root,
        max_turns=options.max_turns,
        report=report,
    )
