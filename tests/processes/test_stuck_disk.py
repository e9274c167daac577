"""Videos on a disk that no longer answers: the run can be ended, and only the samples that need them suffer."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import stuck_disk
from harness import HELPERS, Bench, block, call, make_video, row, wait_until
from scripted_server import Script, ScriptedServer

from eva.frames.probing import FolderSilentError, is_folder

ANSWER = "<answer>B</answer>"
RELEASE_S = 180.0


class StuckDisk:
    """The file system of stuck_disk.py, mounted."""

    def __init__(self, folder: Path, what: str) -> None:
        folder.mkdir()
        self.lines: list[str] = []
        command = [sys.executable, str(Path(stuck_disk.__file__)), str(folder), what]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "mounted\n":
            error = self.process.communicate()[1].strip().rpartition("\n")[2]
            pytest.skip(f"a file system in user space (FUSE) cannot be mounted here: {error}")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def holds_somebody(self) -> bool:
        return "stuck\n" in self.lines


@contextlib.contextmanager
def stuck(folder: Path, what: str) -> Iterator[StuckDisk]:
    if not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root and /dev/fuse")
    disk = StuckDisk(folder, what)
    # A run that the disk holds could not even be killed, and the test would wait for it.
    release = threading.Timer(RELEASE_S, disk.process.kill)
    release.start()
    try:
        yield disk
    finally:
        release.cancel()
        stuck_disk.unmount(str(folder))
        disk.process.kill()  # lets go of all that it holds
        disk.process.wait()


@pytest.mark.parametrize(
    ("what", "number"), [("stat", signal.SIGINT), ("read", signal.SIGTERM), ("stat", signal.SIGTERM)]
)
def test_a_run_whose_videos_lie_on_a_dead_mount_can_be_ended(
    tmp_path: Path, tokenizer_dir: Path, what: str, number: signal.Signals
) -> None:
    with stuck(tmp_path / "mount", what) as disk, ScriptedServer(Script({"q": [ANSWER]})) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        bench.write([row("q")])
        process = bench.start("--grace", "1", video_root=str(tmp_path / "mount"))
        wait_until(disk.holds_somebody)
        process.send_signal(number)
        run = bench.finish(process, timeout_s=60)
    assert run.code == 128 + number, run.said
    assert "to go on:" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.records() == []


def test_a_video_on_a_dead_mount_ends_its_sample_after_the_time_limit_and_others_are_played(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    script = Script({"dead": [ANSWER], "again": [ANSWER], "well": [block(call(0, 1, 2)), ANSWER]})
    videos = tmp_path / "bench" / "videos"
    videos.mkdir(parents=True)
    with stuck(videos / "mount", "stat"), ScriptedServer(script) as server:
        bench = Bench(tmp_path / "bench", server.base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4", frames=20)
        bench.write([row("dead", video="mount/clip.mp4"), row("well"), row("again", video="mount/clip.mp4")])
        run = bench.run("--frame-timeout", "3", "--frame-workers", "2")
    assert run.code == 3, run.said
    assert "Traceback" not in run.stderr
    dead, well, again = (run.by_index()[index] for index in range(3))
    assert well["stop_reason"] == "answer_found"
    for record in (dead, again):
        assert (record["stop_reason"], record["failure"]) == ("exception", "infrastructure")
        assert "took over 3 s" in record["error"]


def test_check_names_a_video_on_a_dead_mount(tmp_path: Path, tokenizer_dir: Path) -> None:
    with stuck(tmp_path / "mount", "read"), ScriptedServer(Script({"q": [ANSWER]})) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        bench.write([row("q")])
        run = bench.run("--check", "--frame-timeout", "3", video_root=str(tmp_path / "mount"))
    assert run.code == 1, run.said
    assert re.search(r"^ +clip\.mp4: the frame tool took over 3 s", run.stdout, re.MULTILINE), run.said


def test_a_foreign_frame_tool_s_videos_are_looked_at_under_the_time_limit_too(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    with stuck(tmp_path / "mount", "read"), ScriptedServer(Script({"q": [ANSWER]})) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        bench.write([row("q")])
        tool = str(HELPERS / "foreign_tool.py")
        run = bench.run("--frame-timeout", "3", video_root=str(tmp_path / "mount"), frame_tool=tool)
    assert run.code == 3, run.said
    assert "took over 3 s" in run.record()["error"]


def test_a_video_folder_that_does_not_answer_is_said_and_not_waited_for(tmp_path: Path) -> None:
    with stuck(tmp_path / "mount", "root"), pytest.raises(FolderSilentError, match=r"mount did not answer for 1 s"):
        is_folder(tmp_path / "mount", timeout_s=1)


def test_a_folder_is_told_from_a_file_and_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_folder(tmp_path)
    assert not is_folder(tmp_path / "file")
    assert not is_folder(tmp_path / "nothing")
