"""The demo's questions, videos and replies: true to what the videos show, and to the protocol."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from tokenizers import Tokenizer

from demo.make_data import plan, render, rows
from demo.questions import KINDS, Question, draw
from demo.scenes import COLOURS, SIZES, Clip
from demo.training.episodes import dialogue, drill_frames, drill_times, play, token_grid
from demo.training.tokenizer import IM_END, build_tokenizer
from demo.video_writer import FPS
from eva.dataset.items import load_items
from eva.protocol.budget import visual_tokens
from eva.protocol.reply import Answer, Calls, parse_reply
from eva.video.probe import probe

ROOT = Path(__file__).resolve().parent.parent


def replies(messages: Sequence[dict[str, object]]) -> list[str]:
    return [str(message["content"]) for message in messages if message["role"] == "assistant"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the demo's videos and twelve questions on them."""
    folder = tmp_path_factory.mktemp("demo")
    films = plan(videos=3, per_kind=6)
    (folder / "videos").mkdir()
    render(films, folder / "videos")
    lines = [json.dumps(row) + "\n" for row in rows(films)]
    (folder / "demo.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def colours_shown(path: Path) -> list[str]:
    """What each frame shows, by the colour nearest to its mean."""
    with av.open(str(path)) as container:
        small = [frame.reformat(16, 16, "rgb24").to_ndarray() for frame in container.decode(video=0)]
    means = [picture.mean(axis=(0, 1)) for picture in small]
    return [min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - mean).sum())) for mean in means]


# --- questions


@pytest.mark.parametrize("kind", KINDS)
def test_the_ground_truth_is_the_colour_at_the_last_look(kind: str) -> None:
    rng = random.Random(1)
    for _ in range(200):
        clip, question = draw(rng, kind, held_out=False)
        right = question.options["ABCD".index(question.letter)]
        assert clip.colour_at(question.looks_s[-1]) == right
        assert len(set(question.options)) == 4


def test_each_branch_of_a_two_look_question_leads_to_another_option() -> None:
    rng = random.Random(2)
    for _ in range(200):
        clip, question = draw(rng, "two-looks", held_out=False)
        reached = [clip.colour_at(time_s) for _, time_s in question.branches]
        assert len(set(reached)) == 3
        assert set(reached) <= set(question.options)
        assert dict(question.branches)[clip.colour_at(question.looks_s[0])] == question.looks_s[1]


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_the_demo_draw_from_parts_that_share_no_question(kind: str) -> None:
    rng = random.Random(3)
    trained = {draw(rng, kind, held_out=False)[1].text for _ in range(300)}
    tested = {draw(rng, kind, held_out=True)[1].text for _ in range(300)}
    assert not trained & tested
    assert all(question.held_out for film in plan(videos=2, per_kind=4) for question in film.questions)


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_letter_cannot_be_guessed(kind: str) -> None:
    rng = random.Random(4)
    letters = [draw(rng, kind, held_out=True)[1].letter for _ in range(400)]
    assert all(70 <= letters.count(letter) <= 130 for letter in "ABCD")


# --- videos


@pytest.mark.process
def test_the_videos_show_the_planned_colours_around_every_look(dataset: Path) -> None:
    for film in plan(videos=3, per_kind=6):
        shown = colours_shown(dataset / "videos" / film.name)
        for look_s in {look_s for question in film.questions for look_s in question.looks_s}:
            around = shown[(look_s - 1) * FPS : (look_s + 2) * FPS]
            assert set(around) == {film.clip.colour_at(look_s)}


@pytest.mark.process
def test_the_videos_are_as_long_and_large_as_planned(dataset: Path) -> None:
    for film in plan(videos=3, per_kind=6):
        video = probe(dataset / "videos" / film.name)
        assert (video.width, video.height) == (film.clip.width, film.clip.height)
        assert int(video.duration_s - 0.5) == film.clip.duration_s - 1


@pytest.mark.process
def test_the_questions_load_as_items_and_name_videos_that_are_there(dataset: Path) -> None:
    items = load_items(dataset / "demo.jsonl")
    assert [item.extra["kind"] for item in items[:4]] == ["one-look", "two-looks"] * 2
    assert all((dataset / "videos" / item.videos[0]).is_file() for item in items)


@pytest.mark.process
def test_a_second_run_renders_no_video_again(dataset: Path) -> None:
    videos = sorted((dataset / "videos").iterdir())
    before = [video.stat().st_mtime_ns for video in videos]
    render(plan(videos=3, per_kind=6), dataset / "videos")
    assert [video.stat().st_mtime_ns for video in videos] == before


# --- replies


@pytest.mark.parametrize(("kind", "calls"), [("one-look", 1), ("two-looks", 2)])
def test_replies_call_at_each_look_and_then_answer(kind: str, calls: int) -> None:
    rng = random.Random(5)
    for _ in range(100):
        *asking, last = replies(play(rng, kind, held_out=True).messages)
        assert len(asking) == calls
        for reply in asking:
            parsed = parse_reply(reply)
            assert isinstance(parsed, Calls)
            assert [call.error for call in parsed.calls] == [None]
        assert isinstance(parse_reply(last), Answer)


def test_the_calls_go_where_the_question_leads() -> None:
    rng = random.Random(6)
    for _ in range(100):
        state = rng.getstate()
        _, question = draw(rng, "two-looks", held_out=True)
        rng.setstate(state)
        asking = replies(play(rng, "two-looks", held_out=True).messages)[:-1]
        assert [_start_s(reply) for reply in asking] == list(question.looks_s)


def _start_s(reply: str) -> int:
    parsed = parse_reply(reply)
    assert isinstance(parsed, Calls)
    arguments = parsed.calls[0].arguments
    assert arguments is not None
    return int(arguments["start_time"])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_frame_costs_what_the_budget_says(width: int, height: int) -> None:
    clip = Clip(width, height, 60, (0,), ("red",))
    question = Question("one-look", "", ("red", "blue", "grey", "cyan"), "A", (3,))
    rows_, columns = token_grid(width=clip.width, height=clip.height)
    asked = replies(dialogue(clip, question).messages)[0]
    parsed = parse_reply(asked)
    assert isinstance(parsed, Calls)
    arguments = parsed.calls[0].arguments
    assert arguments is not None
    assert visual_tokens(arguments["nframes"], arguments["resize"], width=width, height=height) == rows_ * columns


# --- tokenizer


def test_every_text_is_decoded_as_it_was_encoded(tokenizer: Tokenizer) -> None:
    rng = random.Random(7)
    episodes = [play(rng, kind, held_out=False) for kind in KINDS for _ in range(50)]
    episodes += [drill_frames(rng, kind) for kind in KINDS] + [drill_times(rng)]
    texts = [reply for episode in episodes for reply in replies(episode.messages)]
    for text in [*texts, "Ünïcode — 漢字 \t\r\n 12345 <tool_cal", IM_END]:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_model_folder_holds_the_tokenizer_that_this_code_builds(tokenizer: Tokenizer) -> None:
    committed = (ROOT / "demo" / "model" / "tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(committed) == json.loads(tokenizer.to_str())


def test_the_model_fits_into_the_repository() -> None:
    assert sum(file.stat().st_size for file in (ROOT / "demo" / "model").iterdir()) < 12e6


# --- the control's frame tool


@pytest.mark.process
def test_the_control_shows_the_right_video_at_another_time(dataset: Path, tmp_path: Path) -> None:
    item = load_items(dataset / "demo.jsonl")[0]
    look_s, video = item.extra["looks_s"][0], dataset / "videos" / item.videos[0]
    window = [f"--video_path={video}", f"--start_time={look_s}", f"--end_time={look_s + 0.5}"]
    options = ["--nframes=1", "--resize=0.15", "--factor=28", f"--save_root={tmp_path}", "--clamp"]
    done = subprocess.run(
        [sys.executable, ROOT / "demo" / "other_frames.py", *window, *options],
        env={"DEMO_QUESTIONS": str(dataset / "demo.jsonl"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "total frames saved: 1" in done.stdout
    details = json.loads(next(tmp_path.rglob("frames.json")).read_text(encoding="utf-8"))
    assert abs(details["times_s"][0] - look_s) > 9
