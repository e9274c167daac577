"""The agents besides EVA through eval-eva.py: what each sends, what its records say, and that a run holds for all."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import played_agent
import pytest
from agent_replies import ANSWER, OWN_AGENT, hermes, native, window
from harness import ROOT, Bench, Run, beside, block, call, make_video, read_whole_lines, row, send_signals, wait_until
from played_agent import failed, replies_of
from scripted_server import MODEL, Journal, Script, ScriptedServer

from eva.agent.play import FramesError
from eva.agent.tool_call import Outcome
from eva.agents.choice import FRAME_TOKENS
from eva.agents.readers import describe_unread
from eva.agents.uniform import Uniform
from eva.protocol.budget import visual_tokens
from eva.protocol.messages import VideoInfo
from eva.protocol.reply import CallAttempt
from eva.records.schema import read_record
from eva.run.options import Options
from eva.run.settings import choose_agent

WIDTH, HEIGHT = 280, 168
FRAME = 60  # visual tokens of a whole frame
DURATION_S = 6
QUESTION = "[[%s]] What is shown?\nA. one\nB. two"
RENDERED = {"eva", "tools", "hermes"}  # runs whose records hold text
FORM = "Give only the letter of the right option, as <answer>letter</answer>."
OPENING = f"Video Length: 5 seconds. Original video resolution: {HEIGHT}p. {QUESTION}\n{FORM}"
TOOL = {
    "type": "function",
    "function": {
        "name": "frame_select",
        "description": "Get frames of the video.",
        "parameters": {
            "type": "object",
            "properties": {
                "start_time": {"type": "number", "description": "Start of the window in seconds."},
                "end_time": {"type": "number", "description": "End of the window in seconds."},
                "nframes": {"type": "integer", "description": "Number of frames, evenly spaced over the window."},
                "resize": {"type": "number", "description": "Scale of the frames, 1 for the original size."},
            },
            "required": ["start_time", "end_time", "nframes"],
        },
    },
}
TOOLS_TEXT = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>\n" + json.dumps(TOOL) + "\n</tools>\n\nFor each function "
    "call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>"
    '\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
LAST_WORDS = {"role": "user", "content": f"You cannot call the tool again. Answer now.\n{FORM}"}
# By name: what EVA's model does, as the visual tokens of the question.
SPENT = {"none": 0, "little": 8, "some": 4 * FRAME, "much": 11 * FRAME}
EVA_REPLIES = {
    "none": [ANSWER],
    "little": [block(call(0, 2, 1, 0.4)), ANSWER],
    "some": [block(call(0, 2, 4)), ANSWER],
    "much": [block(call(0, 6, 8)), block(call(1, 2, 3)), "Answer: B"],
}
LOOK = window(0, 4, 3, resize=0.5)
REPLIES: Mapping[str, Mapping[str, list[Any]]] = {
    "tools": {
        "plain": [native(LOOK), "The answer is (B)."],
        "two": [native(LOOK, window()), ANSWER],
        "bad": [native("{", '{"nframes": 1}'), native(window(nframes=0)), "**B**"],
        "odd": [{"text": None, "calls": [["rm -rf /", "{}", ""], ["frame_select", json.dumps(LOOK), ""]]}, ANSWER],
        "stubborn": [native(LOOK)],
    },
    "hermes": {
        "plain": [hermes(LOOK), "The answer is (B)."],
        "two": [hermes(LOOK, window()), ANSWER],
        "bad": [hermes("{", '{"name": "frame_select", "arguments": {"nframes": 1}}'), ANSWER],
        "stubborn": [hermes(LOOK)],
    },
}


@dataclass(frozen=True)
class Played:
    run: Run
    journal: Journal
    names: tuple[str, ...]

    def record(self, name: str) -> dict[str, Any]:
        return self.run.by_index()[self.names.index(name)]

    def requests(self, name: str) -> list[list[dict[str, Any]]]:
        return [[dict(message) for message in seen.messages] for seen in self.journal.of(name)]

    def bodies(self, name: str) -> list[Mapping[str, Any]]:
        return [seen.body for seen in self.journal.of(name)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agents")
    make_video(folder / "videos" / "clip.mp4", width=WIDTH, height=HEIGHT)
    (folder / "mine.py").write_text(OWN_AGENT, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def play(folder: Path, tokenizer_dir: Path) -> Any:
    def play(name: str, replies: Mapping[str, list[Any]], *flags: str, strict: bool = True, **script: Any) -> Played:
        with ScriptedServer(Script(replies, strict=strict, **script)) as server:
            bench = Bench(folder, server.base_url, tokenizer_dir if name in RENDERED else Path("none"), name)
            bench.write([row(key, system="Be brief." if key == "two" else None) for key in replies])
            run = bench.run("--max-turns", "3", *flags)
            assert run.code == 0, run.said
            assert server.journal.unexpected == []
            return Played(run, server.journal, tuple(replies))

    return play


@pytest.fixture(scope="module")
def eva(play: Any) -> Played:
    return play("eva", EVA_REPLIES, strict=False)


@pytest.fixture(scope="module")
def uniform(play: Any) -> Played:
    return play("uniform", {"q": [ANSWER], "two": ["B) two"]}, "--agent", "uniform", "--nframes", "5")


@pytest.fixture(scope="module")
def matched(play: Any, eva: Played) -> Played:
    flags = ("--agent", "uniform", "--match", str(eva.run.result), "--frame-tokens", "20")
    return play("matched", {name: [ANSWER] for name in SPENT}, *flags)


@pytest.fixture(scope="module")
def tools(play: Any) -> Played:
    return play("tools", REPLIES["tools"], "--agent", "tools", "--tool-images", "user")


@pytest.fixture(scope="module")
def hermes_run(play: Any) -> Played:
    return play("hermes", REPLIES["hermes"], "--agent", "hermes")


def shape(content: Any) -> Any:
    """Texts as they are; an image as its size."""
    if isinstance(content, str):
        return content
    return [part["text"] if part["type"] == "text" else (part["w"], part["h"]) for part in content]


def labelled(*labels: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[Any]:
    texts = [f"{'' if number == 0 else chr(10)}Frame {number} at [{label}]: " for number, label in enumerate(labels)]
    return [part for text in texts for part in (text, size)]


# --- uniform and blind


def test_uniform_shows_frames_of_the_whole_video_before_the_question_in_one_request(uniform: Played) -> None:
    (request,) = uniform.requests("q")
    frames = labelled("00:00", "00:01", "00:03", "00:04", "00:06")
    assert [(one["role"], shape(one["content"])) for one in request] == [
        ("user", [*frames, f"\n{QUESTION % 'q'}\n{FORM}"])
    ]
    assert [message["role"] for message in uniform.requests("two")[0]] == ["system", "user"]


def test_the_record_of_uniform_names_the_agent_its_frames_and_their_tokens(uniform: Played) -> None:
    record = uniform.record("q")
    assert (record["agent"], record["answer"], record["num_rounds"]) == ("uniform", "B", 1)
    assert record["estimated_visual_tokens"] == 5 * FRAME
    (look,) = record["opening"]
    assert (len(look["frames"]), look["tokens"], look["error"]) == (5, 5 * FRAME, None)
    assert [round_["calls"] for round_ in record["trajectory"]] == [[]]
    assert uniform.record("two")["answer"] == "B"


def test_uniform_spends_on_each_question_what_the_other_run_spent_within_one_frame(
    eva: Played, matched: Played
) -> None:
    for name, spent in SPENT.items():
        assert eva.record(name)["estimated_visual_tokens"] == spent
        record = matched.record(name)
        looks = record.get("opening", [])
        (images,) = [[one for one in m["content"] if one["type"] == "image"] for m in matched.requests(name)[0]]
        one_frame = [round(image["h"] / 28) * round(image["w"] / 28) for image in images]
        assert all(tokens <= 20 for tokens in one_frame)
        assert record["estimated_visual_tokens"] == sum(one_frame)
        assert abs(record["estimated_visual_tokens"] - spent) <= 20
        assert sum(len(look["frames"]) for look in looks) == len(images)
        assert bool(images) == bool(spent)


def test_uniform_does_not_run_beside_a_result_that_lacks_its_questions(play: Any, eva: Played, folder: Path) -> None:
    bench = Bench(folder, "http://127.0.0.1:9/v1", Path("none"), "lacking")
    bench.write([row("none"), row("another")])
    run = bench.run("--agent", "uniform", "--match", str(eva.run.result))
    assert run.code == 2
    assert "no finished record of the question 1" in run.stderr, "a record of another question"


def test_blind_sends_the_question_alone(play: Any) -> None:
    blind = play("blind", {"q": [r"So it is \boxed{B}."]}, "--agent", "blind")
    assert blind.requests("q") == [[{"role": "user", "content": f"{QUESTION % 'q'}\n{FORM}"}]]
    assert (blind.record("q")["answer"], blind.record("q")["estimated_visual_tokens"]) == ("B", 0)


# --- tools and hermes


def test_tools_describes_its_tool_and_brings_frames_behind_the_tool_message(tools: Played) -> None:
    first, second = tools.requests("plain")
    assert first == [{"role": "user", "content": OPENING % "plain"}]
    assert tools.bodies("plain")[0]["tools"] == [TOOL]
    assistant, tool, user = second[1:]
    (made,) = assistant["tool_calls"]
    assert (assistant["content"], json.loads(made["function"]["arguments"])) == ("I look.", LOOK)
    assert (tool["role"], tool["tool_call_id"]) == ("tool", made["id"])
    assert shape(user["content"])[1:] == labelled("00:00", "00:02", "00:04", size=(140, 84))
    assert tools.record("plain")["answer"] == "B"


def test_tools_puts_frames_into_the_tool_message_where_the_server_takes_them(play: Any) -> None:
    played = play("inside", {"plain": [native(LOOK), ANSWER]}, "--agent", "tools", strict=False)
    tool = played.requests("plain")[1][-1]
    assert tool["role"] == "tool" and tool["tool_call_id"]
    assert shape(tool["content"]) == labelled("00:00", "00:02", "00:04", size=(140, 84))


def test_a_bad_call_gets_its_error_back_and_the_model_goes_on(tools: Played) -> None:
    _, second, third = tools.requests("bad")
    said = [message["content"] for message in second[2:]]
    assert said == ["Error: the arguments are not a JSON object", "Error: start_time and end_time are required"]
    assert third[-2]["role"] == "tool" and third[-2]["content"].startswith("Error: ")
    record = tools.record("bad")
    assert (record["answer"], record["num_rounds"], record["stop_reason"]) == ("B", 3, "answer_found")
    errors = [[one["error"] for one in round_["calls"]] for round_ in record["trajectory"]]
    assert errors == [["arguments_not_json", "no_start_or_end_time"], ["call_frame_select_failed"], []]


def test_native_calls_are_kept_as_they_came_and_sent_back_as_a_server_takes_them(tools: Played) -> None:
    record = tools.record("odd")
    assert record["answer"] == "B"
    assert record["trajectory"][0]["tool_calls"][0] == {"id": "", "name": "rm -rf /", "arguments": "{}"}
    assistant, refused, shown = tools.requests("odd")[1][1:4]
    assert [one["function"]["name"] for one in assistant["tool_calls"]] == ["frame_select", "frame_select"]
    assert "there is no function 'rm -rf /'" in refused["content"]
    assert shown["role"] == "tool"


def test_hermes_describes_the_tool_in_the_system_message_behind_the_prompts_own(hermes_run: Played) -> None:
    first, second = hermes_run.requests("two")
    assert first == [
        {"role": "system", "content": f"Be brief.\n\n{TOOLS_TEXT}"},
        {"role": "user", "content": OPENING % "two"},
    ]
    assert hermes_run.requests("plain")[0][0] == {"role": "system", "content": TOOLS_TEXT}
    assert [set(body) for body in hermes_run.bodies("two")] == [{"messages", "model", "max_tokens", "temperature"}] * 2
    assert second[2] == {"role": "assistant", "content": REPLIES["hermes"]["two"][0]}
    assert second[3]["role"] == "user"
    blocks = [
        ["<tool_response>\n", *frames, "\n</tool_response>"]
        for frames in (labelled("00:00", "00:02", "00:04", size=(140, 84)), labelled("00:00", "00:02"))
    ]
    assert shape(second[3]["content"]) == [*blocks[0], *blocks[1]]


@pytest.mark.parametrize("agent", ["tools", "hermes_run"])
def test_on_the_last_turn_the_model_is_told_to_answer_and_gets_no_tools(
    agent: str, request: pytest.FixtureRequest
) -> None:
    played: Played = request.getfixturevalue(agent)
    requests, bodies = played.requests("stubborn"), played.bodies("stubborn")
    assert [LAST_WORDS in messages for messages in requests] == [False, False, True]
    assert requests[-1][-1] == LAST_WORDS
    assert ["tools" in body for body in bodies] == ([True, True, False] if agent == "tools" else [False] * 3)
    assert played.record("stubborn")["num_rounds"] == 3
    assert played.record("stubborn")["answer"] == ""


# --- a run is the same for all of them


@pytest.mark.parametrize(
    ("agent", "flags", "replies"),
    [
        ("tools", ("--tool-images", "user"), [native(LOOK), "B"]),
        ("mine.py:MyAgent", (), [{"text": "(B)"}]),
    ],
)
def test_a_run_that_was_interrupted_goes_on_through_failing_servers_and_names_its_agent(
    agent: str, flags: tuple[str, ...], replies: list[Any], folder: Path
) -> None:
    flags = ("--agent", agent, *flags)
    failing = [{**replies[0], "status": 503, "times": 1}, *replies[1:]]
    names = [str(number) for number in range(4)]
    with ScriptedServer(Script(dict.fromkeys(names, failing), strict=True, default_delay_s=0.2)) as server:
        bench = Bench(folder, server.base_url, Path("none"), f"resumed-{agent[:4]}")
        bench.write([row(name) for name in names])

        def interrupt() -> None:
            wait_until(lambda: bool(read_whole_lines(bench.cache)))
            send_signals(signal.SIGTERM)

        with beside(interrupt):
            interrupted = bench.run("--max-concurrent", "1", "--grace", "60", *flags)
        assert interrupted.code == 143, interrupted.said
        kept = {record["index"] for record in interrupted.records()}
        server.script.default_delay_s = 0.0
        asked = len(server.journal.seen)
        run = bench.run(*flags)
        assert run.code == 0, run.said
        again = {int(seen.key) for seen in server.journal.seen[asked:]}
        assert kept and not kept & again
        assert server.journal.unexpected == []
    assert [(one["agent"], one["answer"]) for one in run.records()] == [(agent, "B")] * 4


def test_settings_of_an_agent_and_the_text_of_its_file_keep_caches_apart(folder: Path) -> None:
    mine = folder / "changing.py"
    with ScriptedServer(Script(lambda key: ["B"])) as server:
        bench = Bench(folder, server.base_url, Path("none"), "apart")
        bench.write([row("a"), row("b")])
        assert bench.run("--agent", "uniform", "--nframes", "2", "--sample", "1").code == 0
        other = bench.run("--agent", "uniform", "--nframes", "3")
        assert (other.code, "nframes: 2 then, 3 now" in other.stderr) == (2, True)
        own = replace(bench, dataset="apart-own")
        mine.write_text(OWN_AGENT, encoding="utf-8")
        assert own.run("--agent", f"{mine}:MyAgent", "--sample", "1").code == 0
        mine.write_text(OWN_AGENT + "\n# changed\n", encoding="utf-8")
        changed = own.run("--agent", f"{mine}:MyAgent")
        assert (changed.code, "agent_sha256" in changed.stderr) == (2, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--agent", "nobody"), "neither an agent of this harness nor path/to/mine.py:MyAgent"),
        (("--nframes", "3"), "--nframes is a setting of --agent uniform"),
        (("--agent", "hermes", "--tool-images", "user"), "--tool-images is a setting of --agent tools"),
        (("--agent", "uniform", "--nframes", "3", "--match", "x"), "leave --nframes out"),
    ],
)
def test_an_agent_that_cannot_play_ends_the_run_before_it_begins(
    folder: Path, flags: tuple[str, ...], said: str
) -> None:
    bench = Bench(folder, "http://127.0.0.1:9/v1", Path("none"), "unusable")
    bench.write([row("a")])
    run = bench.run(*flags)
    assert run.code == 2
    assert said in run.stderr
    assert "Traceback" not in run.stderr


# --- what else other models need


def test_headers_fields_and_limits_of_the_flags_are_sent_and_secrets_are_not_shown(
    folder: Path,
) -> None:
    thinking = {"text": "B", "reasoning_content": "It is blue."}
    refused = {"status": 422}
    script = Script({"a": [thinking], "b": [refused]}, new_limit=True, headers={"X-Key": "s3cret"})
    with ScriptedServer(script) as server:
        bench = Bench(folder, server.base_url, Path("none"), "flags")
        bench.write([row("a"), row("b")])
        extra = json.dumps({"temperature": None, "top_p": 0.5})
        flags = ("--agent", "blind", "--header", "X-Key: s3cret", "--extra-body", extra, "--max-tokens", "7")
        run = bench.run(*flags)
        (seen,) = server.journal.of("a")
    sent = {key: value for key, value in seen.body.items() if key != "messages"}
    assert sent == {"model": MODEL, "max_completion_tokens": 7, "top_p": 0.5}
    record = run.by_index()[0]
    assert record["trajectory"][0]["reasoning"] == "It is blue."
    assert record["messages"] == [*seen.messages, {"role": "assistant", "content": "B"}]
    assert run.code == 3, run.said
    assert "s3cret" not in run.said + run.result.with_suffix(".meta.json").read_text(encoding="utf-8")


def test_images_inside_requests_are_not_kept_in_the_messages_of_a_record(folder: Path) -> None:
    with ScriptedServer(Script({"a": ["B"]})) as server:
        bench = Bench(folder, server.base_url, Path("none"), "no-data")
        bench.write([row("a")])
        run = bench.run("--agent", "uniform", "--nframes", "2", "--image-transport", "base64")
        assert server.journal.of("a")[0].urls[0].startswith("data:image/bmp;base64,Qk")
    urls = [part["image_url"]["url"] for part in run.record()["messages"][0]["content"] if "image_url" in part]
    assert urls == ["data:image/bmp;base64"] * 2


def test_a_token_of_32_pixels_makes_frames_of_its_multiples() -> None:
    options = Options("own", agent="uniform", nframes=1, pixels_per_token=32)
    agent = choose_agent(options, []).make()
    assert agent == Uniform(1, FRAME_TOKENS, 32)
    asked: list[CallAttempt] = []

    async def run_call(attempt: CallAttempt, video: VideoInfo, *, budget: bool) -> Outcome:
        asked.append(attempt)
        return failed(attempt, "only to see what it asks for")

    with pytest.raises(FramesError, match="opens with"):
        played_agent.run(agent, replies_of()[0], run_call, video=VideoInfo(6.0, WIDTH, HEIGHT))
    assert asked[0].arguments is not None
    assert visual_tokens(1, asked[0].arguments["resize"], width=WIDTH, height=HEIGHT, side=32) == 9 * 5


# --- a model that answers in another form


def test_the_agent_that_can_read_a_reply_is_the_one_that_asks_for_its_form() -> None:
    own = {
        "eva": {"reply": block(call(0, 2, 4))},
        "hermes": {"reply": hermes(LOOK)},
        "tools": {"tool_calls": [{"id": "a", "name": "frame_select", "arguments": json.dumps(LOOK)}]},
    }
    for name, reply in own.items():
        (round_,) = read_record({"index": 0, "trajectory": [reply], "schema": 1}).rounds
        assert describe_unread(round_, "?").endswith(f"; --agent {name} can read it")


# --- the page


def test_the_agent_that_the_page_shows_plays_as_it_stands_there(folder: Path) -> None:
    page = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(# zoom\.py\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert code.count("\n") <= 60
    (folder / "zoom.py").write_text(code, encoding="utf-8")
    replies = {"q": ["I look closer: <second>3</second>", "Answer: B"], "far": ["<second>999999</second>", "(B)"]}
    with ScriptedServer(Script(replies, strict=True)) as server:
        bench = Bench(folder, server.base_url, Path("none"), "zoom")
        bench.write([row(name) for name in replies])
        run = bench.run("--agent", "zoom.py:Zoom", "--max-turns", "2")
        assert run.code == 0, run.said
        first, second = [list(seen.messages) for seen in server.journal.of("q")]
        assert server.journal.unexpected == []
    shown = [part for part in first[0]["content"] if part["type"] == "image"]
    assert [(image["w"], image["h"]) for image in shown] == [(56, 56)] * 8
    closer = [part for part in second[2]["content"] if part["type"] == "image"]
    assert [(image["w"], image["h"]) for image in closer] == [(WIDTH, HEIGHT)] * 2
    assert second[-1]["content"].startswith("Answer now.")
    assert [(record["answer"], record["agent"]) for record in run.records()] == [("B", "zoom.py:Zoom")] * 2


@pytest.mark.parametrize(
    ("name", "flags"),
    [("tools", ("--tool-images", "user")), ("hermes", ()), ("uniform", ("--nframes", "5", "--frame-tokens", "20"))],
)
def test_the_result_of_any_agent_can_be_replayed_with_its_flags_and_not_without(
    name: str, flags: tuple[str, ...], folder: Path, tokenizer_dir: Path
) -> None:
    replies = REPLIES.get(name, {"a": [ANSWER], "b": ["no answer"]})
    with ScriptedServer(Script(replies)) as server:
        bench = Bench(folder, server.base_url, tokenizer_dir, f"replayed-{name}")
        bench.write([row(key) for key in replies])
        assert bench.run("--agent", name, *flags).code == 0
    again = bench.run("--agent", name, *flags, "--replay", str(bench.result))
    assert (again.code, f"{len(replies)} of {len(replies)} identical" in again.stdout) == (0, True), again.said
    other = bench.run("--replay", str(bench.result))
    assert other.code == 2
    assert f"agent: '{name}' then, None now" in other.stderr


COUNTS = """
from eva import Agent, Answer


class Counts(Agent):
    async def run(self, s):
        before = s.task.video.fps, s.task.video.frames
        video, other = await s.open(), await s.open(1)
        s.messages = [{"role": "user", "content": s.task.question}]
        await s.complete(temperature=0.5, max_tokens=77)
        found = [(one.name, one.fps, one.frames, one.duration_s) for one in (video, other)]
        return Answer(f"{before} {found}")
"""


def test_an_agent_opens_videos_for_their_rate_and_number_of_frames_and_sets_fields_of_its_requests(
    folder: Path,
) -> None:
    make_video(folder / "videos" / "short.mp4", frames=20)
    (folder / "counts.py").write_text(COUNTS, encoding="utf-8")
    with ScriptedServer(Script({"q": ["B"]})) as server:
        bench = Bench(folder, server.base_url, Path("none"), "counts")
        bench.write([{**row("q"), "videos": ["clip.mp4", "short.mp4"]}])
        run = bench.run("--agent", "counts.py:Counts")
        body = server.journal.of("q")[0].body
    assert run.code == 0, run.said
    assert run.record()["answer"] == "(None, None) [('clip.mp4', 10.0, 60, 6.0), ('short.mp4', 10.0, 20, 2.0)]"
    assert (body["temperature"], body["max_tokens"]) == (0.5, 77)
