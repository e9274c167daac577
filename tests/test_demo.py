"""The demo's questions, videos and replies: true to what the videos show, and to the protocol."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from demo.make_data import plan, render, rows
from demo.questions import KINDS, Question, draw
from demo.scenes import COLOURS, SIZES, Clip
from demo.training.episodes import Episode, dialogue, drill_frames, drill_times, play, token_grid
from demo.training.forms import EVA, HERMES
from demo.training.tokenizer import IM_END, build_tokenizer
from demo.video_writer import FPS
from eva.agents.frame_function import TOOL
from eva.dataset.items import load_items
from eva.protocol.budget import visual_tokens
from eva.protocol.reply import Answer, Calls, parse_reply

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
    episodes = [
        play(rng, kind, held_out=False, form=form) for kind in KINDS for form in (EVA, HERMES) for _ in range(25)
    ]
    episodes += [drill_frames(rng, kind, form) for kind in KINDS for form in (EVA, HERMES)]
    episodes += [drill_times(rng, form) for form in (EVA, HERMES)]
    texts = [reply for episode in episodes for reply in replies(episode.messages)]
    for text in [*texts, "Ünïcode — 漢字 \t\r\n 12345 <tool_cal", IM_END]:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_model_folder_holds_the_tokenizer_that_this_code_builds(tokenizer: Tokenizer) -> None:
    committed = (ROOT / "demo" / "model" / "tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(committed) == json.loads(tokenizer.to_str())


def test_the_model_folder_holds_the_chat_template_of_this_code() -> None:
    model, training = (ROOT / "demo" / folder / "chat_template.jinja" for folder in ("model", "training"))
    assert model.read_text(encoding="utf-8") == training.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def template() -> Callable[..., str]:
    """Conversation -> text, as the server makes it of the messages and tools of a request."""
    chat: Any = AutoTokenizer.from_pretrained(ROOT / "demo" / "model")
    return partial(chat.apply_chat_template, tokenize=False, add_generation_prompt=True)


def test_a_conversation_of_eva_becomes_chatml_with_its_roles_as_they_are(template: Callable[..., str]) -> None:
    messages = play(random.Random(10), "two-looks", held_out=True).messages
    turns = [f"<|im_start|>{message['role']}\n{as_text(message['content'])}<|im_end|>\n" for message in messages]
    assert template(messages) == "".join(turns) + "<|im_start|>assistant\n"


def as_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "<|vision_start|><|image_pad|><|vision_end|>") for part in content)


@pytest.mark.parametrize("kind", KINDS)
def test_native_tool_calls_become_the_text_of_the_hermes_form(template: Callable[..., str], kind: str) -> None:
    episode = play(random.Random(11), kind, held_out=True, form=HERMES)
    assert template(as_native(episode), tools=[TOOL]) == template(episode.messages)


def as_native(episode: Episode) -> list[dict[str, Any]]:
    """The same conversation as a server with a tool parser gets it; the system message is the template's."""
    native: list[dict[str, Any]] = []
    for message in episode.messages[1:]:
        said, _, called = str(message["content"]).partition("<tool_call>")
        if message["role"] == "assistant" and called:
            function = json.loads(called.removesuffix("</tool_call>"))
            native.append({"role": "assistant", "content": said, "tool_calls": [{"id": "1", "function": function}]})
        elif isinstance(message["content"], list):
            native.append({"role": "tool", "tool_call_id": "1", "content": message["content"][1:-1]})
        else:
            native.append(message)
    return native


def test_two_responses_in_a_row_share_a_turn_also_where_the_last_request_has_no_tools(
    template: Callable[..., str],
) -> None:
    calls = [{"id": str(i), "function": {"name": "f", "arguments": {}}} for i in range(2)]
    answers = [{"role": "tool", "tool_call_id": str(i), "content": f"Error: {i}"} for i in range(2)]
    asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    written = (
        '<|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
        '\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nError: 0\n</tool_response>"
        "\n<tool_response>\nError: 1\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert template([*asked, *answers]).endswith(written)
    assert template([*asked, *answers], tools=[TOOL]).endswith(written)


# --- the control's frame tool


@pytest.mark.process
def test_the_control_shows_the_right_video_at_another_time(dataset: Path, tmp_path: Path) -> None:
    item = load_items(dataset / "demo.jsonl")[0]
    look_s, video = item.extra["looks_s"][0], dataset / "videos" / item.videos[0]
    window = [f"--video_path={video}", f"--start_time={look_s}", f"--end_time={look_s + 0.5}"]
    options = ["--nframes=1", "--resize=0.15", "--factor=28", f"--save-root={tmp_path}", "--clamp"]
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
