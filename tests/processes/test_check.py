"""eval-eva.py --check as a process: each kind of trouble in the table, in the verdict and in the exit code."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from agent_replies import hermes, native, window
from harness import Bench, Run, block, call, make_video, row
from scripted_server import Script, ScriptedServer
from videos import Recipe, encode

ANSWER = "<answer>B</answer>"
NEEDED_TOKENS = 5 * 12000 + 6 * 2048 + 4096


def script(**settings: Any) -> Script:
    return Script(lambda key: [ANSWER], **{"context": 131072, **settings})


# Each with the text that must say so, its verdict first; that of a server stands in the rows of that server.
VIDEO_TROUBLES = {
    "absent.mp4": r" absent.mp4: is missing, in another container too",
    "truncated.mp4": r" truncated.mp4: .+",
    "half.mkv": r" half.mkv: truncated: pictures end at [0-9.]+ s of 12.0 s",
    "half.mp4": r" half.mp4:? .*is cut off: of [0-9]+ bytes it has",
    "audio.mp4": r" audio.mp4: .+",
    "../clip.mp4": r" ../clip.mp4: .*leaves the video root",
}
# Sound is longer than the pictures, or begins before them.
SHOWN_SHORTER_THAN_SOUND = [
    Recipe("sound.mkv", "libx264", sound_s=12),
    Recipe("sound.flv", "libx264", sound_s=12),
    Recipe("sound.ts", "libx264", sound_s=60),
    Recipe("after-sound.webm", "libvpx", first_pts=50, sound_s=12, sound_codec="libopus"),
]
SERVERS = {
    "only lists its model": (script(down=True), "failed .* a frame by file://: .*the engine is dead"),
    "has too small a context": (
        script(context=32768), rf"warning .* context: 32768 tokens; a sample may need {NEEDED_TOKENS} tokens"
    ),
    "does not tell its context": (script(context=None), "warning .* context: the server does not say it"),
    "may not read the frame root": (
        script(may_read=False),
        r"failed .* a frame by file://: .*files without `--allowed-local-media-path`. start vLLM with "
        r"--allowed-local-media-path /.*/servers/frames or run this with --image-transport base64",
    ),
    "takes few images": (script(most_images=8), r"failed .* 256 images: .*At most 8 image"),
    "serves another model": (script(models=["other"]), r"failed .* does not serve 'scripted-eva'"),
    "has no fault": (script(), r"ok .* 256 images: answered"),
    "is not there": (None, "failed .* no server answers"),
}  # fmt: skip


def make_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for _ in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    whole = make_video(folder / "clip.mp4", frames=20)
    (folder / "truncated.mp4").write_bytes(whole.read_bytes()[:-200])
    listed_first = Recipe("whole.mp4", "libx264", count=200, container_options={"movflags": "faststart"})
    for lasting in (make_video(folder / "whole.mkv", frames=120), encode(listed_first, folder)):
        (folder / f"half{lasting.suffix}").write_bytes(lasting.read_bytes()[: lasting.stat().st_size // 2])
    for recipe in SHOWN_SHORTER_THAN_SOUND:
        encode(recipe, folder)
    make_audio(folder / "audio.mp4")
    return folder


@dataclass(frozen=True)
class Checked:
    """Runs of --check; `urls` are the addresses by what is wrong with the server."""

    runs: Mapping[str, Run]
    urls: Mapping[str, str]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path, videos: Path) -> Iterator[Checked]:
    folder = tmp_path_factory.mktemp("checks")
    with contextlib.ExitStack() as stack:
        urls = {
            name: stack.enter_context(ScriptedServer(script)).base_url if script else "http://127.0.0.1:9/v1"
            for name, (script, _) in SERVERS.items()
        }
        well = urls["has no fault"]

        def check(name: str, rows: list[dict[str, Any]], *flags: str, base_url: str = well) -> Run:
            bench = Bench(folder / name, base_url, tokenizer_dir)
            bench.write(rows)
            return bench.run("--check", *flags, video_root=str(videos))

        hopeless = [row("a", truth="@"), row("b", truth="E"), row("c", truth="(B)"), row("d"), row("e", truth="\uff22")]
        names = [*VIDEO_TROUBLES, *(recipe.name for recipe in SHOWN_SHORTER_THAN_SOUND)]
        broken = [row("a"), *(row(name, video=name) for name in names)]
        servers = check("servers", [row("a")], "--model", "scripted-eva", base_url=",".join(urls.values()))
        small = check("small", hopeless, "--max-turns", "2", base_url=urls["has too small a context"])
        yield Checked({"videos": check("videos", broken), "servers": servers, "small": small}, urls)


def has_row(pattern: str, run: Run) -> bool:
    """Whether a row of the table, as one line, is so."""
    rows = (" ".join(row.replace(": ", " ", 1).split()) for row in re.split(r"\n(?=\S)", run.stdout.rstrip()))
    return any(re.search(pattern, row) for row in rows)


@pytest.mark.parametrize("name", VIDEO_TROUBLES)
def test_a_video_that_cannot_be_shown_is_named_with_its_reason(checked: Checked, name: str) -> None:
    run = checked.runs["videos"]
    assert has_row(VIDEO_TROUBLES[name], run), run.said
    assert has_row(r"^failed videos 6 of 11 cannot be shown:", run), run.said
    check_verdict(run, code=1)


@pytest.mark.parametrize("name", SERVERS)
def test_each_server_is_judged_by_itself(checked: Checked, name: str) -> None:
    run, (verdict, _, said) = checked.runs["servers"], SERVERS[name][1].partition(" ")
    assert has_row(f"^{verdict} server {checked.urls[name]} {said}".replace(" .* ", " (.* )?"), run), run.said
    check_verdict(run, code=1)


def test_hopeless_truths_are_a_warning_and_fewer_turns_fit_a_small_context(checked: Checked) -> None:
    run = checked.runs["small"]
    assert has_row(
        r"^warning ground truths 4 can never be right, such as 0 \('@'\), 1 \('E'\), 2 \('\(B\)'\), 4 ", run
    ), run.said
    assert has_row("^ok server .* context: 32768 tokens", run), run.said
    check_verdict(run, code=0)


@pytest.mark.parametrize(
    ("agent", "reply", "said"),
    [
        ("eva", ANSWER, "question 0: answered 'B' after 1 replies"),
        ("eva", hermes(window()), "no_valid_tool_call: .*frame_select.*; --agent hermes can read it"),
        ("hermes", native(window()), "'I look.'; no agent of this harness can read it"),
        ("tools", block(call(0, 1, 1)), "--agent eva can read it"),
        ("eva", r"It is \boxed{B}.", "--agent tools or hermes can read it"),
    ],
)
def test_one_question_is_played_and_a_model_that_writes_another_form_fails_the_check(
    videos: Path, tmp_path: Path, agent: str, reply: Any, said: str
) -> None:
    with ScriptedServer(Script({"played": [reply]}, context=131072)) as server:
        bench = Bench(tmp_path, server.base_url, Path("none"))
        bench.write([row("played")])
        run = bench.run("--check", "--agent", agent, "--max-turns", "2", video_root=str(videos))
    verdict = "ok" if "answered" in said else "failed"
    assert has_row(rf"^{verdict} one question --agent {agent}: .*{said}", run), run.said
    check_verdict(run, code=int(verdict == "failed"))


def check_verdict(run: Run, *, code: int) -> None:
    assert run.code == code, run.said
    failed = len(re.findall(r"^failed ", run.stdout, re.MULTILINE))
    assert run.stdout.splitlines()[-1] == f"Verdict: {f'{failed} checks failed' if failed else 'ready to run'}"
    assert "Traceback" not in run.stderr


def test_a_check_runs_nothing_and_leaves_only_what_the_frame_store_keeps(checked: Checked) -> None:
    assert checked.runs
    for run in checked.runs.values():
        files = [path for path in run.output_dir.parent.rglob("*") if path.is_file()]
        assert {path.name for path in files if "store" not in path.parts} <= {"questions.jsonl"}


@pytest.fixture
def bench(tmp_path: Path, tokenizer_dir: Path, videos: Path) -> Iterator[Callable[..., Run]]:
    with ScriptedServer(script()) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        bench.write([row("a"), row("b", video="absent.mp4")])

        def check(**settings: Any) -> Run:
            return bench.run("--check", **{"video_root": str(videos), **settings})

        yield check


def test_all_that_is_missing_is_found_in_one_go(bench: Callable[..., Run], tmp_path: Path) -> None:
    absent = {"video_root": "absent_videos", "tokenizer": "/absent", "base_url": "http://127.0.0.1:9/v1"}
    run = bench(**absent, frame_tool="absent_tool.py", output_dir=str(tmp_path / "questions.jsonl"))
    starts = [
        "there is no tokenizer folder /absent",
        "there is no video folder",
        "there is no frame tool absent_tool.py",
    ]
    for text in [*starts, "--output-dir /.*/questions.jsonl cannot be written to", "no server answers"]:
        assert has_row(f"^failed .*{text}", run), run.said
    assert has_row("^ok questions 2 on 2 videos", run), "the rest is checked all the same"
    check_verdict(run, code=1)
