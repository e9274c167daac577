"""A frame tool that cannot work ends the run; one that fails on a video stays that sample's failure."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from harness import HELPERS, Bench, Run, block, call, make_video, row
from scripted_server import Script, ScriptedServer
from test_worker_tool import BAD_WORKER, CLIP, Encoded, idle, look, make_tool, run

from eva.errors import VideoError
from eva.frames.tool import FrameToolError, FrameToolUnusableError
from eva.frames.tools import WorkerTool

ANSWER = "<answer>B</answer>"
KEYS = [f"question {number}" for number in range(8)]
FOREIGN = (HELPERS / "foreign_tool.py").read_text(encoding="utf-8")


def run_with(tool: Path, tmp_path: Path, tokenizer_dir: Path) -> Run:
    """A run of one question on each of eight videos, one at a time."""
    with ScriptedServer(Script({key: [block(call(0, 1, 2)), ANSWER] for key in KEYS})) as server:
        bench = Bench(tmp_path / "bench", server.base_url, tokenizer_dir)
        for number in range(len(KEYS)):
            make_video(bench.videos / f"{number}.mp4", frames=10)
        bench.write([row(key, video=f"{number}.mp4") for number, key in enumerate(KEYS)])
        return bench.run("--max-concurrent", "1", frame_tool=str(tool))


def script(path: Path, text: str, *, mode: int = 0o755) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


BROKEN = {
    "an interpreter that is not there": ("tool", "#!/no/such/interpreter\n", r"cannot be started: No such file"),
    "an interpreter that env does not find": ("tool", "#!/usr/bin/env no-such-one\n", r"failed on each of.*no-such"),
    "no right to execute it": ("tool", "#!/bin/sh\n", r"cannot be started: Permission denied"),
    "no program at all": ("tool", "\x7fELF\n", r"cannot be started: Exec format error"),
    "a crash at its start": ("tool.py", "import no_such_module\n", r"failed on each of.*: ModuleNotFoundError"),
    "words that are not the protocol's": ("tool.py", "print('done')\n", r"failed on each of.*printed 'done"),
    "a death at its start": ("tool.py", "import os\nos.kill(os.getpid(), 11)\n", r"failed on each of.*no reason"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_foreign_tool_that_works_for_no_call_ends_the_run(tmp_path: Path, tokenizer_dir: Path, what: str) -> None:
    name, text, reason = BROKEN[what]
    mode = 0o644 if what == "no right to execute it" else 0o755
    ended = run_with(script(tmp_path / name, text, mode=mode), tmp_path, tokenizer_dir)
    assert ended.code == 1, ended.said
    assert "Traceback" not in ended.stderr
    assert f"the frame tool {tmp_path / name}" in ended.stderr
    assert "to go on:" in ended.stderr
    sentence = ended.stderr.rpartition("eval-eva.py: ")[2]
    assert re.search(reason, sentence), sentence
    assert {record["stop_reason"] for record in ended.records()} <= {"exception"}, "it is nobody's wrong answer"


FAILING = {
    "crashes on one video": "if '3.mp4' in sys.argv[1]:\n    raise RuntimeError('this video')\n",
    "dies of one video": "import os\nif '3.mp4' in sys.argv[1]:\n    os.kill(os.getpid(), 11)\n",
    "refuses one video": "if '3.mp4' in sys.argv[1]:\n    sys.exit('not this video')\n",
}


@pytest.mark.parametrize("what", FAILING)
def test_a_foreign_tool_that_fails_for_one_video_costs_that_sample_only(
    tmp_path: Path, tokenizer_dir: Path, what: str
) -> None:
    head, future, rest = FOREIGN.partition("from __future__ import annotations\n")
    text = head + future + "import sys\n" + FAILING[what] + rest
    ended = run_with(script(tmp_path / "tool.py", text), tmp_path, tokenizer_dir)
    assert ended.code == (3 if "dies" in what else 0), ended.said
    reasons = [record["stop_reason"] for record in ended.records()]
    assert reasons[:3] + reasons[4:] == ["answer_found"] * 7
    assert reasons[3] == ("exception" if "dies" in what else "call_frame_select_failed")


def test_an_own_tool_that_can_no_longer_be_started_ends_the_run(encoded: Encoded, tmp_path: Path) -> None:
    text = BAD_WORKER.read_text(encoding="utf-8").replace("__file__", repr(str(BAD_WORKER)))
    worker = script(tmp_path / "worker.py", text)

    async def use(tool: WorkerTool) -> None:
        assert len((await tool.extract(encoded(CLIP), look(), sample=1)).frames) == 3
        worker.unlink()
        idle(tool)[0].kill()
        await idle(tool)[0].wait()
        with pytest.raises(FrameToolUnusableError, match=r"worker\.py cannot be started"):
            await tool.extract(encoded(CLIP), look(), sample=2)

    run(make_tool(tmp_path / "frames", script=worker), use)


# --- what probing a video may take


@pytest.mark.parametrize(("name", "reason"), [("hangs", "took over 4 s"), ("grows", "took over 400 MB of memory")])
def test_a_video_that_cannot_be_probed_within_the_limits_is_looked_at_once(
    encoded: Encoded, tmp_path: Path, name: str, reason: str
) -> None:
    video = tmp_path / f"{name}.mp4"
    video.symlink_to(encoded(CLIP))

    async def use(tool: WorkerTool) -> None:
        first, second, good = await asyncio.gather(
            tool.probe(video), tool.probe(video), tool.probe(encoded(CLIP)), return_exceptions=True
        )
        assert isinstance(first, FrameToolError)
        assert reason in str(first)
        assert "not tried again" in str(second)
        assert good.info.width == 160  # type: ignore[union-attr]

    run(make_tool(tmp_path / "frames", script=BAD_WORKER, count=2, timeout_s=4, memory_mb=400), use)


def test_a_video_is_probed_once_for_all_its_questions(encoded: Encoded, tmp_path: Path) -> None:
    async def use(tool: WorkerTool) -> list[Any]:
        return list(await asyncio.gather(*(tool.probe(encoded(CLIP)) for _ in range(5))))

    found = run(make_tool(tmp_path), use)
    assert all(one is found[0] for one in found)
    assert (found[0].path, found[0].size) == (encoded(CLIP), encoded(CLIP).stat().st_size)


def test_a_video_that_is_not_there_is_its_samples_failure(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello\n")
    for name, reason in (("gone.mp4", "is missing"), ("text.mp4", "cannot be opened")):
        with pytest.raises(VideoError, match=reason):
            run(make_tool(tmp_path / "frames"), lambda tool, name=name: tool.probe(tmp_path / name))  # type: ignore[misc]
