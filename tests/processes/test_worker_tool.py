"""Warm workers of the frame tool: same frames as a process per call, and no bad video costs more than its samples."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from harness import FRAME_TOOL, HELPERS, Bench, block, call, make_video, row, wait_until
from PIL import Image
from restated import decode_all, describe, resized
from scripted_server import Script, ScriptedServer
from videos import Recipe

from eva.frames.eviction import Evictor
from eva.frames.tool import CallFailedError, FrameToolError, FrameToolUnusableError, ToolSettings
from eva.frames.tools import WorkerTool
from eva.frames.worker import Workers
from eva.protocol.arguments import FrameRequest

T = TypeVar("T")
Encoded = Callable[[Recipe], Path]
CLIP = Recipe("clip.mp4", "libx264", options={"g": "20", "preset": "veryfast"})
BAD_WORKER = HELPERS / "bad_worker.py"
MB = 2**20


def make_tool(
    root: Path,
    *,
    count: int = 1,
    script: Path = FRAME_TOOL,
    timeout_s: float = 60,
    memory_mb: int = 2000,
    cap_bytes: int = 10**9,
    **settings: Any,
) -> WorkerTool:
    workers = Workers([sys.executable, str(script), "--worker"], count, timeout_s, memory_mb * MB)
    settings_ = ToolSettings(
        FRAME_TOOL, root, **{"backend": "auto", "fallback": True, "timeout_s": timeout_s, **settings}
    )
    return WorkerTool(settings_, workers, root.parent, Evictor(root, cap_bytes), "bmp")


def run(tool: WorkerTool, use: Callable[[WorkerTool], Awaitable[T]]) -> T:
    async def main() -> T:
        try:
            return await use(tool)
        finally:
            await tool.close()

    return asyncio.run(main())


def look(start_s: float = 0, end_s: float = 2.4, nframes: int = 3, resize: float = 0.5, **extra: Any) -> FrameRequest:
    return FrameRequest(start_s, end_s, nframes, resize, extra)


def idle(tool: WorkerTool) -> list[Process]:
    return tool.workers._idle


async def stopped(tool: WorkerTool, video: Path) -> Process:
    """A worker that has served a call and will not answer the next one."""
    await tool.extract(video, look(), sample=1)
    (worker,) = idle(tool)
    worker.send_signal(signal.SIGSTOP)
    return worker


def read_picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- what a worker serves


def test_a_worker_gives_the_frames_and_the_details_of_a_call_of_its_own(encoded: Encoded, tmp_path: Path) -> None:
    video = encoded(CLIP)
    extraction = run(make_tool(tmp_path), lambda tool: tool.extract(video, look(1, 99), sample=1))
    assert {key: extraction.details[key] for key in ("video", "decoder", "indices", "times_s", "width", "height")} == {
        "video": str(video), "decoder": "av", "indices": [25, 42, 59], "times_s": [1.0, 1.68, 2.36],
        "width": 84, "height": 56,
    }  # fmt: skip
    owed = [describe(resized(picture, 0.5)) for picture in decode_all(video).pictures([25, 42, 59])]
    assert [describe(read_picture(frame)) for frame in extraction.frames] == owed


def test_calls_share_the_process(encoded: Encoded, tmp_path: Path) -> None:
    async def twice(tool: WorkerTool) -> set[int]:
        pids = set()
        for _ in range(2):
            await tool.extract(encoded(CLIP), look(), sample=1)
            pids.add(idle(tool)[0].pid)
        return pids

    assert len(run(make_tool(tmp_path), twice)) == 1


def test_no_more_workers_run_than_were_asked_for(encoded: Encoded, tmp_path: Path) -> None:
    async def many(tool: WorkerTool) -> int:
        await asyncio.gather(*(tool.extract(encoded(CLIP), look(0, 1 + k / 10), sample=1) for k in range(6)))
        return len(idle(tool))

    assert run(make_tool(tmp_path, count=2), many) <= 2


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (look(nframes=0), "positive, not 0"),
        (look(start_s=float("nan")), "not a time at which"),
    ],
)
def test_what_the_tool_refuses_is_a_failed_call_and_the_worker_goes_on(
    encoded: Encoded, tmp_path: Path, request_: FrameRequest, reason: str
) -> None:
    async def refused(tool: WorkerTool) -> int:
        with pytest.raises(CallFailedError, match=reason):
            await tool.extract(encoded(CLIP), request_, sample=1)
        (worker,) = idle(tool)
        return len((await tool.extract(encoded(CLIP), look(), sample=1)).frames) + (idle(tool) == [worker])

    assert run(make_tool(tmp_path), refused) == 4


def test_without_fallback_windows_and_unknown_arguments_are_refused_as_by_the_command(
    encoded: Encoded, tmp_path: Path
) -> None:
    async def refused(tool: WorkerTool) -> None:
        with pytest.raises(CallFailedError, match="not after its start"):
            await tool.extract(encoded(CLIP), look(2, 1), sample=1)
        with pytest.raises(CallFailedError, match="unrecognized arguments: --why"):
            await tool.extract(encoded(CLIP), look(why="curious"), sample=1)

    run(make_tool(tmp_path, fallback=False), refused)


def test_without_fallback_a_model_that_chooses_decord_gets_what_decord_can_use(
    encoded: Encoded, tmp_path: Path
) -> None:
    by_time = encoded(Recipe("plain-vp9.webm", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}))

    async def use(tool: WorkerTool) -> str:
        with pytest.raises(CallFailedError, match="decord cannot use"):
            await tool.extract(by_time, look(backend="decord"), sample=1)
        assert (await tool.extract(by_time, look(backend="decord", b="auto"), sample=1)).frames
        return str((await tool.extract(encoded(CLIP), look(backend="decord"), sample=1)).details["decoder"])

    assert run(make_tool(tmp_path, fallback=False), use) == "av"


def test_a_disk_that_fills_up_is_not_the_calls_fault_and_leaves_no_half_picture(
    encoded: Encoded, tmp_path: Path
) -> None:
    script = tmp_path / "full.py"  # a file may not grow beyond 2 kB: every write of a picture fails midway
    script.write_text(
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"sys.path.insert(0, {str(FRAME_TOOL.parent)!r})\n"
        f"runpy.run_path({str(FRAME_TOOL)!r}, run_name='__main__')\n"
    )
    root = tmp_path / "frames"
    with pytest.raises(FrameToolUnusableError, match="File too large"):
        run(make_tool(root, script=script), lambda tool: tool.extract(encoded(CLIP), look(resize=1), sample=1))
    assert [path for path in root.rglob("*") if path.is_file() and "frame" in path.name] == []


def test_what_a_library_prints_does_not_end_up_among_the_replies(encoded: Encoded, tmp_path: Path) -> None:
    video = tmp_path / "babbles.mp4"
    video.symlink_to(encoded(CLIP))
    tool = make_tool(tmp_path / "frames", script=BAD_WORKER)
    assert len(run(tool, lambda tool: tool.extract(video, look(), sample=1)).frames) == 3


def test_frames_are_held_until_their_sample_is_over(encoded: Encoded, tmp_path: Path) -> None:
    async def held(tool: WorkerTool) -> None:
        tool.evictor.settled_s = 0
        first = await tool.extract(encoded(CLIP), look(0, 1), sample=1)
        second = await tool.extract(encoded(CLIP), look(1.5, 2), sample=2)
        assert all(frame.exists() for frame in (*first.frames, *second.frames))
        tool.release(1)
        await tool.extract(encoded(CLIP), look(2.1, 2.2), sample=2)
        assert not any(frame.exists() for frame in first.frames)
        assert all(frame.exists() for frame in second.frames)

    run(make_tool(tmp_path, cap_bytes=1), held)


# --- workers that are lost


def test_a_worker_that_is_killed_in_the_middle_of_a_call_is_replaced_and_the_call_is_tried_again(
    encoded: Encoded, tmp_path: Path
) -> None:
    async def killed(tool: WorkerTool) -> None:
        worker = await stopped(tool, encoded(CLIP))
        asked = asyncio.create_task(tool.extract(encoded(CLIP), look(), sample=1))
        await asyncio.to_thread(wait_until, lambda: not idle(tool))
        worker.kill()
        assert len((await asked).frames) == 3
        assert idle(tool)[0].pid != worker.pid

    run(make_tool(tmp_path), killed)


def test_a_video_on_which_two_workers_crash_is_not_tried_again(encoded: Encoded, tmp_path: Path) -> None:
    video = tmp_path / "crashes.mp4"
    video.symlink_to(encoded(CLIP))

    async def use(tool: WorkerTool) -> None:
        for reason in (r"again ended \(exit status -11\)", "not tried again in this run"):
            with pytest.raises(FrameToolError, match=reason):
                await tool.extract(video, look(), sample=1)

    run(make_tool(tmp_path / "frames", script=BAD_WORKER), use)


@pytest.mark.parametrize(("name", "reason"), [("hangs", "took over 4 s"), ("grows", "took over 400 MB of memory")])
def test_a_video_that_exceeds_a_limit_is_not_tried_again_and_others_are_served(
    encoded: Encoded, tmp_path: Path, name: str, reason: str
) -> None:
    video = tmp_path / f"{name}.mp4"
    video.symlink_to(encoded(CLIP))

    async def use(tool: WorkerTool) -> None:
        bad, good = await asyncio.gather(
            tool.extract(video, look(), sample=1), tool.extract(encoded(CLIP), look(), sample=1), return_exceptions=True
        )
        assert isinstance(bad, FrameToolError)
        assert reason in str(bad)
        assert len(good.frames) == 3  # type: ignore[union-attr]
        before = {worker.pid for worker in idle(tool)}
        with pytest.raises(FrameToolError, match="not tried again in this run"):
            await tool.extract(video, look(), sample=1)
        assert {worker.pid for worker in idle(tool)} == before, "a quarantined video costs no worker"

    run(make_tool(tmp_path / "frames", script=BAD_WORKER, count=2, timeout_s=4, memory_mb=400), use)


def test_a_cancelled_call_leaves_no_reply_for_the_next_one(encoded: Encoded, tmp_path: Path) -> None:
    async def cancelled(tool: WorkerTool) -> None:
        worker = await stopped(tool, encoded(CLIP))
        asked = asyncio.create_task(tool.extract(encoded(CLIP), look(nframes=7), sample=1))
        await asyncio.to_thread(wait_until, lambda: not idle(tool))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not lives(worker.pid)
        assert len((await tool.extract(encoded(CLIP), look(nframes=2), sample=1)).frames) == 2

    run(make_tool(tmp_path), cancelled)


# --- the life of a worker


def test_a_harness_that_is_killed_leaves_no_worker_behind(tmp_path: Path, tokenizer_dir: Path) -> None:
    script = Script({"q": [block(call(1, 4, 2)), {"text": "<answer>B</answer>", "delay_s": 60}]})
    with ScriptedServer(script) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4")
        bench.write([row("q")])
        process = bench.start()
        wait_until(lambda: len(server.journal.of("q")) == 2)
        workers = children(process.pid)
        assert workers
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        wait_until(lambda: not any(map(lives, workers)), timeout_s=20)
