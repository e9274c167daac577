"""The frame-selection tool as a command: its line, its folder, its exit codes, and its pixels."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import restated
from harness import FRAME_TOOL, GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from videos import Recipe, encode, read_number, read_picture

import select_frame_fallback as tool
from eva.errors import EXIT_CANNOT_READ
from eva.frames.store import folder_name

Encoded = Callable[[Recipe], Path]
CLIP = Recipe("clip.mp4", "libx264", options={"g": "20", "preset": "veryfast"})  # 60 frames, 25 fps, 160x120
LINE = re.compile(
    r"Frames saved to (.+), total frames saved: (\d+), from (.+)/frame_0000\.png to (.+)/frame_(\d{4,})\.png\n"
)


@dataclass(frozen=True)
class Called:
    code: int
    out: str
    err: str
    root: Path

    @property
    def folder(self) -> Path:
        match = LINE.fullmatch(self.out)
        assert match, self.out
        assert match[1] == match[3] == match[4]
        assert int(match[5]) == int(match[2]) - 1
        return Path(match[1])

    @property
    def details(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "frames.json").read_text()))

    def pictures(self) -> list[NDArray[np.uint8]]:
        return read_pictures(self.folder)

    def assert_refused(self, *, code: int = 1, reason: str) -> None:
        assert (self.code, self.out) == (code, "")
        assert re.search(reason, self.err), self.err
        assert "Traceback" not in self.err
        assert not self.root.exists() or list(self.root.rglob("*")) == [], "something was left behind"


def read_pictures(folder: Path) -> list[NDArray[np.uint8]]:
    paths = sorted(folder.glob("frame_*.png"))
    return [read_picture(path) for path in paths]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Called]]:
    """Calls the command; `root` is a folder for its frames that does not exist yet."""
    root = tmp_path / "frames"

    def run(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", [str(FRAME_TOOL), "--save-root", str(root), *map(str, arguments)])
        try:
            code = tool.main()
        except SystemExit as exited:
            code = int(exited.code or 0)
        return Called(code, *capfd.readouterr(), root)

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


def save(*arguments: object, root: Path) -> Path:
    """What the command does, without the process around it."""
    folder, _ = tool.save_frames(tool.parse_arguments([*map(str, arguments), "--save-root", str(root)]))
    return folder


# --- what a call gives


def test_one_line_is_printed_and_the_folder_is_date_stem_and_time(
    call: Callable[..., Called], encoded: Encoded
) -> None:
    called = call("-i", encoded(CLIP), "--nframes", "3")
    assert (called.code, called.err) == (0, "")
    assert re.fullmatch(r"\d{8}/clip/\d{6}_[0-9a-f]{8}", str(called.folder.relative_to(called.root)))
    assert sorted(path.name for path in called.folder.iterdir()) == [
        "frame_0000.png", "frame_0001.png", "frame_0002.png", "frames.json",
    ]  # fmt: skip
    assert [path.name for path in called.root.iterdir()] == [called.folder.parts[-3]], "only the dated folder is left"


def test_frames_json_tells_what_was_executed(call: Callable[..., Called], encoded: Encoded) -> None:
    video = encoded(CLIP)
    called = call("-i", video, "--start", "1", "--end", "99", "--nframes", "3", "--resize", "0.5", "--clamp")
    assert called.details == {
        "video": str(video),
        "decoder": "av",
        "start_s": 1.0,
        "end_s": 2.3599998950958252 + 0.04,  # a 32-bit float
        "indices": [25, 42, 59],
        "times_s": [1.0, 1.68, 2.36],
        "width": 80,
        "height": 60,
        "average_fps": 25,
    }
    assert [read_number(picture) for picture in called.pictures()] == [25, 42, 59]


def test_save_dir_is_the_folder_itself_and_other_files_in_it_stay(
    call: Callable[..., Called], encoded: Encoded, tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "here"
    folder.mkdir(parents=True)
    (folder / "note.txt").write_text("keep")
    called = call("-i", encoded(CLIP), "--nframes", "2", "--save-dir", folder)
    assert called.folder == folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "frame_0000.png", "frame_0001.png", "frames.json", "note.txt",
    ]  # fmt: skip


def test_repeated_frames_are_saved_as_often_as_they_were_sampled(tmp_path: Path) -> None:
    video = encode(Recipe("slow.mp4", "libx264", count=8, rate=Fraction(1)), tmp_path)
    folder = save("-i", video, "--start", 3, "--end", 5, "--nframes", 6, root=tmp_path / "frames")
    assert [read_number(picture) for picture in read_pictures(folder)] == [3, 3, 4, 4, 5, 5]


def test_pictures_of_a_video_that_changes_size_midway_all_have_the_first_size(tmp_path: Path) -> None:
    small = encode(Recipe("small.ts", "mpeg2video", count=10), tmp_path)
    large = encode(Recipe("large.ts", "mpeg2video", count=10, width=320, height=240), tmp_path)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    folder = save("-i", both, "--nframes", 5, "--clamp", root=tmp_path / "frames")
    assert {picture.shape for picture in read_pictures(folder)} == {(120, 160, 3)}


def test_the_resize_is_opencvs_bicubic(encoded: Encoded, tmp_path: Path) -> None:
    with av.open(str(encoded(CLIP))) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    folder = save("-i", encoded(CLIP), "--nframes", 2, "--resize", 0.6, "--factor", 28, root=tmp_path / "frames")
    assert np.array_equal(read_pictures(folder)[0], cv2.resize(first, (84, 84), interpolation=cv2.INTER_CUBIC))


def test_the_reference_decoder_serves_when_asked_for_and_is_named(
    call: Callable[..., Called], encoded: Encoded
) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    called = call("-i", encoded(CLIP), "--nframes", "2", "--backend", "decord")
    assert called.details["decoder"] == "decord"
    assert [read_number(picture) for picture in called.pictures()] == called.details["indices"]


# --- arguments


@pytest.mark.parametrize("video", ["-i", "--video-path", "--video_path"])
@pytest.mark.parametrize("start", ["--start", "--start-time", "--start_time"])
@pytest.mark.parametrize("end", ["--end", "--end-time", "--end_time"])
def test_every_name_of_an_argument_means_the_same(video: str, start: str, end: str) -> None:
    for words in ([video, "v.mp4", start, "1", end, "2"], [f"{video}=v.mp4", f"{start}=1", f"{end}=2"]):
        arguments = tool.parse_arguments(words)
        assert (arguments.video_path, arguments.start, arguments.end) == (Path("v.mp4"), 1, 2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("12.5", 12.5), ("1e1", 10), ("-3", -3), ("-.5", -0.5), ("00:10", 10), ("1:02:03", 3723),
        ("75:07", 4507), ("01:02.250", 62.25), ("00:00:01.", 1), (" -1:05 ", -55), (" 5 ", 5), ("1_0", 10),
        ("0:0:0:1", 1), ("1:30:00:00", 324000), ("0:1e0", 1), ("1:-2", 58), ("inf", math.inf),
    ],
)  # fmt: skip
def test_times_are_seconds_or_clock_strings(text: str, seconds: float) -> None:
    arguments = tool.parse_arguments(["-i", "v.mp4", "--start", text, "--end", text])
    assert (arguments.start, arguments.end) == (seconds, seconds)


def test_an_empty_end_is_the_streams_end_and_of_several_times_the_last_one_counts() -> None:
    words = ["-i", "v.mp4", "--start", "soon", "--start-time=-1e-05", "--end_time", "3", "--end", ""]
    arguments = tool.parse_arguments(words)
    assert (arguments.start, arguments.end) == (-1e-05, None)


@pytest.mark.parametrize(
    "words",
    [
        ["--start", "soon"], ["--start", ""], ["--end", "None"], ["--start", "1:"], ["--start", "0:" * 999 + "0"],
        ["--start", "-1e-05"], ["--start", "-1:00"], ["--end", "-1e20"], ["--nframes", "4.0"], ["--nframes", "many"],
        ["--resize", "half"], ["--backend", "ffmpeg"], ["--crop", "[0,0,1,1]"], ["--form", "png"], ["--sta", "1"],
        ["--save_root", "x"], ["--save_dir", "x"], ["--vid", "v.mp4"], ["--clamp=yes"], ["--cl=yes"],
        ["--nframes"], ["extra"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_unusable_argument_or_the_beginning_of_several_names_ends_with_exit_code_2(
    words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        tool.parse_arguments(["-i", "v.mp4", *words])
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


# --- refusals


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--nframes", "0"], "positive, not 0"),
        (["--nframes", "-4"], "positive, not -4"),
        (["--resize", "0"], r"positive number, not 0\.0"),
        (["--resize", "-1"], "positive number"),
        (["--resize", "nan"], "positive number"),
        (["--factor", "0", "--resize", "1"], "factor must be positive"),
        (["--factor", "100000", "--resize", "1000"], "pixels"),
        (["--start", "2", "--end", "1"], "not after its start"),
        (["--start", "1", "--end", "1"], "not after its start"),
        (["--start", "100"], "not after its start"),
        (["--end", "inf"], "not a time at which"),
        (["--start", "nan", "--clamp"], "not a time at which"),
        (["--end", "nan", "--clamp", "--nframes", "1"], "not a time at which"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_makes_no_sense_is_one_sentence_and_exit_code_1(
    call: Callable[..., Called], encoded: Encoded, words: Sequence[str], reason: str
) -> None:
    called = call("-i", encoded(CLIP), *words)
    called.assert_refused(reason=reason)
    assert called.err.count("\n") == 1


@pytest.mark.parametrize("window", [("2", "1"), ("100", "200"), ("-9", "-5")])
def test_clamped_such_a_window_becomes_the_whole_stream(
    encoded: Encoded, tmp_path: Path, window: tuple[str, str]
) -> None:
    words = ["-i", encoded(CLIP), "--start", window[0], "--end", window[1], "--nframes", 2, "--clamp"]
    folder = save(*words, root=tmp_path / "frames")
    assert [read_number(picture) for picture in read_pictures(folder)] == [0, 59]


@pytest.mark.parametrize(("end", "owed"), [("inf", [50, 59]), ("nan", [50, 50])])
def test_clamped_an_infinite_end_is_the_streams_and_with_nan_every_frame_is_the_first(
    encoded: Encoded, tmp_path: Path, end: str, owed: list[int]
) -> None:
    words = ["-i", encoded(CLIP), "--start", 2, "--end", end, "--nframes", 2, "--clamp"]
    folder = save(*words, root=tmp_path / "frames")
    assert [read_number(picture) for picture in read_pictures(folder)] == owed
    assert math.isfinite(json.loads((folder / "frames.json").read_text())["end_s"])


def test_unclamped_times_outside_the_stream_give_its_first_and_last_frame(encoded: Encoded, tmp_path: Path) -> None:
    words = ["-i", encoded(CLIP), "--start", -5, "--end", 50, "--nframes", 3]
    assert [read_number(p) for p in read_pictures(save(*words, root=tmp_path / "frames"))] == [0, 59, 59]


def make_text(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("hello\n")
    return path


def make_sound(folder: Path) -> Path:
    path = folder / "sound.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 44100), np.float32), format="fltp", layout="stereo")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return path


def make_empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


@pytest.mark.parametrize(
    ("make", "code", "reason"),
    [
        (make_text, 1, r"text\.mp4 cannot be opened as a video: Invalid data"),
        (make_sound, 1, r"sound\.m4a holds no video stream"),
        (make_empty, 1, r"empty\.mp4 cannot be opened as a video"),
        (lambda folder: folder, 1, "not a video but a folder"),
        (lambda folder: folder / "nope.mp4", EXIT_CANNOT_READ, r"nope\.mp4 cannot be read: No such file"),
        (lambda folder: folder / "..", 1, "not a video but a folder"),
    ],
    ids=["text", "audio", "empty", "folder", "missing", "dots"],
)
def test_what_is_no_video_is_one_sentence_that_names_the_file(
    call: Callable[..., Called], tmp_path: Path, make: Callable[[Path], Path], code: int, reason: str
) -> None:
    called = call("-i", make(tmp_path), "--clamp")
    called.assert_refused(code=code, reason=reason)
    assert called.err.strip().splitlines()[-1].startswith("error: ")


def test_without_decord_its_backend_is_refused_with_what_to_install(
    call: Callable[..., Called], encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)  # as if it were not installed
    call("-i", encoded(CLIP), "--backend", "decord").assert_refused(reason="pip install decord")
    assert call("-i", encoded(CLIP), "--nframes", "1").code == 0


@pytest.mark.parametrize("option", ["--save-root", "--save-dir"])
def test_where_nothing_can_be_written_the_exit_code_is_74(
    call: Callable[..., Called], encoded: Encoded, tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").touch()
    call("-i", encoded(CLIP), option, tmp_path / "file" / "frames").assert_refused(code=74, reason="cannot be written")


@pytest.mark.process
def test_a_terminated_call_leaves_no_half_filled_folder(encoded: Encoded, tmp_path: Path) -> None:
    root = tmp_path / "frames"
    words = [sys.executable, str(FRAME_TOOL), "-i", str(encoded(CLIP)), "--save-root", str(root), "--nframes", "2000"]
    process = subprocess.Popen([*words, "--resize", "10"], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not list(root.rglob("frame_0000.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(root.rglob("frame_0000.png")), "the call was to be caught in the middle"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == b""
    assert process.returncode == 128 + signal.SIGTERM
    assert list(root.rglob("*")) == []


# --- hostile names


HOSTILE = [
    "...mp4", ".mp4", "a\nb.mp4", "a\rb.mp4", "a\u2028b.mp4", "\x1b[31mred.mp4", "a\\b.mp4", "-i.mp4", "%s{0}.mp4",
    "$(touch x).mp4", "total frames saved: 9, from x.mp4", "фильм 電影.mp4", " .mp4", os.fsdecode(b"\xff\xfe.mp4"),
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_file_name_stays_below_the_save_root_and_on_one_line(
    call: Callable[..., Called], encoded: Encoded, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(encoded(CLIP).read_bytes())
    called = call(f"--video-path={tmp_path / name}", "--nframes", "1")
    assert called.code == 0, called.err
    assert len(called.out.splitlines()) == 1
    assert len(called.folder.relative_to(called.root).parts) == 3
    assert called.folder.resolve().is_relative_to(called.root.resolve())
    assert (called.folder / "frame_0000.png").is_file()
    assert called.details["video"] == str(tmp_path / name)


@given(stem=st.text(min_size=1))
def test_a_folder_name_is_one_printable_part_and_never_a_way_up(stem: str) -> None:
    name = folder_name(stem)
    assert name not in ("", ".", "..")
    assert "/" not in name
    assert name.isprintable()
    assert len(Path("root", name).parts) == 2


# --- measured pixels of the reference

CASES: dict[str, Any] = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))
ARGUMENTS = re.compile(r'"(?:arguments|parameters)":\s*(\{[^{}]*\})\s*\}')


def golden_looks() -> Iterator[tuple[str, str, tuple[tuple[float, float, int, float], ...], tuple[str, ...]]]:
    """(case, video, looks as (start, end, nframes, resize), frame hashes) for each tool response; each one once."""
    seen = set()
    for name, case in CASES.items():
        messages = case["requests"][-1]["messages"] if case["requests"] and case["pixels"] == "exact" else []
        for reply, response in pairwise(messages):
            if response["role"] == "tool":
                shas = tuple(part["sha"] for part in response["content"] if part["type"] == "image")
                looks = tuple(golden_calls(reply["content"]))
                if (case["video"], looks) not in seen:
                    seen.add((case["video"], looks))
                    yield name, case["video"], looks, shas


def golden_calls(reply: str) -> Iterator[tuple[float, float, int, float]]:
    for text in ARGUMENTS.findall(reply):
        call = json.loads(text)
        if {"start_time", "end_time", "nframes"} <= set(call):
            yield call["start_time"], call["end_time"], call["nframes"], call.get("resize") or 1.0


@pytest.mark.parametrize(
    ("name", "video", "looks", "shas"),
    [pytest.param(*look, id=f"{look[0]}-{n}") for n, look in enumerate(golden_looks())],
)
def test_pixels_equal_the_measured_ones_of_the_reference(
    tmp_path: Path, name: str, video: str, looks: tuple[tuple[float, float, int, float], ...], shas: tuple[str, ...]
) -> None:
    path = GOLDEN / "videos" / video
    with av.open(str(path)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    got = []
    for start, end, asked, ratio in looks:
        nframes, resize, _ = restated.budgeted(asked, ratio, width=width, height=height)
        window = [f"--start={start}", f"--end={end}", f"--nframes={nframes}", f"--resize={resize}"]
        folder = save("-i", path, *window, "--factor", 28, "--clamp", root=tmp_path)
        got += [hashlib.sha256(picture.tobytes()).hexdigest()[:16] for picture in read_pictures(folder)]
    assert tuple(got) == shas
