"""Videos on a disk that no longer answers, fails or goes away: the run can be ended, only the samples that need them
suffer, and never by the model's fault."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import stuck_disk
from disks import failing, mounted
from harness import HELPERS, Bench, Run, block, call, make_video, row, wait_until
from scripted_server import Script, ScriptedServer

from eva.frames.tool import VideosLostError
from eva.frames.tools import is_folder

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


def test_a_video_folder_that_does_not_answer_is_said_and_not_waited_for(tmp_path: Path) -> None:
    with stuck(tmp_path / "mount", "root"), pytest.raises(VideosLostError, match=r"mount did not answer for 1 s"):
        is_folder(tmp_path / "mount", timeout_s=1)


def test_a_folder_is_told_from_a_file_and_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_folder(tmp_path)
    assert not is_folder(tmp_path / "file")
    assert not is_folder(tmp_path / "nothing")


# --- a disk that fails or goes away


KEYS = [f"question {number}" for number in range(6)]
FOREIGN = (HELPERS / "foreign_tool.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Incident:
    """Runs of six questions on six videos. After its first request, each sample waits for four seconds."""

    bench: Bench
    server: ScriptedServer

    def run_while(self, happens: Callable[[], object], **settings: str) -> Run:
        """A run in which something happens once all questions are asked."""
        process = self.bench.start("--max-concurrent", str(len(KEYS)), **settings)
        wait_until(lambda: all(self.server.journal.of(key) for key in KEYS))
        happens()
        return self.bench.finish(process)


@pytest.fixture
def incident(tmp_path: Path, tokenizer_dir: Path) -> Iterator[Incident]:
    script = Script({key: [{"text": block(call(0, 1, 2)), "delay_s": 4}, ANSWER] for key in KEYS})
    with ScriptedServer(script) as server:
        yield Incident(Bench(tmp_path / "bench", server.base_url, tokenizer_dir), server)


def make_videos(folder: Path) -> None:
    for number in range(len(KEYS)):
        make_video(folder / f"{number}.mp4", frames=20)


@contextlib.contextmanager
def mounted_videos(folder: Path, disk: Path) -> Iterator[None]:
    make_videos(disk)
    with mounted(folder, str(disk), ["--bind"]):
        yield


def test_a_video_folder_that_goes_away_ends_the_run_which_goes_on_when_it_is_back(
    incident: Incident, tmp_path: Path
) -> None:
    incident.bench.write([row(key, video=f"{number}.mp4") for number, key in enumerate(KEYS)])
    with contextlib.ExitStack() as mount:
        mount.enter_context(mounted_videos(incident.bench.videos, tmp_path / "disk"))
        run = incident.run_while(mount.close)
    assert run.code == 1, run.said
    assert re.search(rf"the video folder {incident.bench.videos} is gone or empty.*; to go on:", run.stderr), run.stderr
    assert run.records() == []
    with mounted_videos(incident.bench.videos, tmp_path / "disk"):
        run = incident.bench.run()
    assert run.code == 0, run.said
    assert {record["stop_reason"] for record in run.records()} == {"answer_found"}


def test_a_disk_below_the_video_folder_that_goes_away_ends_the_run_after_three_videos(
    incident: Incident, tmp_path: Path
) -> None:
    (incident.bench.videos / "readme").touch()
    incident.bench.write([row(key, video=f"disk/{number}.mp4") for number, key in enumerate(KEYS)])
    with contextlib.ExitStack() as mount:
        mount.enter_context(mounted_videos(incident.bench.videos / "disk", tmp_path / "disk"))
        run = incident.run_while(mount.close)
    assert run.code == 1, run.said
    assert re.search(r"3 videos in a row cannot be read.*No such file.*; to go on:", run.stderr), run.stderr
    assert [record["failure"] for record in run.records()] == ["infrastructure"] * 2


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing happens": Path.stat,
    "it is gone": Path.unlink,
    "it is gone, but not its other container": lambda video: video.rename(video.with_suffix(".mkv")),
    "it is empty": lambda video: video.write_bytes(b""),
}
TOOLS = {
    "refuses": "if not os.path.exists(video) or not os.path.getsize(video):\n    sys.exit('no video')\n",
    "says so": "if '3.mp4' in video:\n    sys.exit(66)\n",
}


@pytest.mark.parametrize(
    ("tool", "change"),
    [
        (None, "it is gone"),
        (None, "it is gone, but not its other container"),
        (None, "it is empty"),
        ("refuses", "it is empty"),
        ("says so", "nothing happens"),
    ],
)
def test_a_video_that_is_not_as_it_was_found_is_not_the_models_fault(
    incident: Incident, tmp_path: Path, tool: str | None, change: str
) -> None:
    make_videos(incident.bench.videos)
    incident.bench.write([row(key, video=f"{number}.mp4") for number, key in enumerate(KEYS)])
    settings = {}
    if tool is not None:
        head, future, rest = FOREIGN.partition("from __future__ import annotations\n")
        begin = f"import os, sys\nvideo = sys.argv[1].partition('=')[2]\n{TOOLS[tool]}"
        (tmp_path / "tool.py").write_text(head + future + begin + rest, encoding="utf-8")
        settings["frame_tool"] = str(tmp_path / "tool.py")
    run = incident.run_while(lambda: CHANGES[change](incident.bench.videos / "3.mp4"), **settings)
    assert run.code == 3, run.said
    outcomes = [(record["stop_reason"], record.get("failure")) for record in run.records()]
    assert outcomes.pop(3) == ("exception", "infrastructure"), run.by_index()[3]
    assert outcomes == [("answer_found", None)] * 5


def test_a_read_error_is_neither_the_models_nor_kept_by_check_or_run(tmp_path: Path, tokenizer_dir: Path) -> None:
    script = Script({"q": [block(call(0, 12, 7)), ANSWER]})
    with ScriptedServer(script) as server, failing(tmp_path / "disk", tmp_path / "image") as disk:
        bench = Bench(tmp_path / "bench", server.base_url, tokenizer_dir)
        video = make_video(disk.folder / "clip.mkv", frames=120)
        bench.write([row("q", video="clip.mkv")])
        disk.fail(video, video.stat().st_size // 2)
        checked = bench.run("--check", video_root=str(disk.folder))
        failed = bench.run(video_root=str(disk.folder))
        assert failed.record()["failure"] == "infrastructure"
        disk.heal()
        again = bench.run("--retry-error", "--yes", video_root=str(disk.folder))
    assert (checked.code, failed.code, again.code) == (1, 3, 0), checked.said + failed.said + again.said
    assert re.search(r"^ +clip\.mkv: .*Input/output error", checked.stdout, re.MULTILINE), checked.said
    (seen,) = again.record()["trajectory"][0]["calls"]
    assert seen["executed"]["indices"] == [0, 20, 40, 60, 80, 100, 119]
