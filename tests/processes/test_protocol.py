"""The protocol's rules, case by case, through eval-eva.py as a process; these cases need nothing but this repository.

All of them are one run with a budget of 36 tokens, 32 lines and 3 turns, so that small clips reach every rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, Run, block, call, make_video, row
from restated import Conversation, Decoded, Window, budgeted, decode_all, opening
from scripted_server import Journal, Reply, Script, ScriptedServer

WIDTH, HEIGHT, FPS, FRAMES = 96, 64, 10, 60
BUDGET, MAXP, MAX_TURNS = 36, 32, 3
FAILED = "call_frame_select_failed"
ANSWER = "I see it. <answer>B</answer>"


@dataclass(frozen=True)
class Case:
    """Replies, and what is owed for them.

    `looks` are the calls of each round that must show frames, in numbers and before the budget; `failed_tokens` is
    what calls without frames add to the estimate. `refused`: a last request goes out that the server turns down.
    """

    replies: tuple[Reply, ...]
    looks: tuple[tuple[Window, ...], ...] = ()
    stop_reason: str = "answer_found"
    answer: str = "B"
    failed_tokens: int = 0
    refused: bool = False
    asked_twice: bool = False
    system: str | None = None
    video: str = "clip.mp4"
    rounds: int | None = None


def one_look(text: str, *windows: Window, failed_tokens: int = 0, video: str = "clip.mp4") -> Case:
    return Case((text, ANSWER), (windows,), failed_tokens=failed_tokens, video=video)


def no_look(text: Reply, stop_reason: str, *, failed_tokens: int = 0) -> Case:
    return Case((text,), stop_reason=stop_reason, answer="", failed_tokens=failed_tokens)


def failing(arguments: str, *, tokens: int = 0) -> Case:
    return no_look(block(f'{{"tool": "frame_select", "arguments": {arguments}}}'), FAILED, failed_tokens=tokens)


TWO = Window(1, 4, 2, 1.0)
LACKS_START = '{"tool": "frame_select", "arguments": {"end_time": 4, "nframes": 2}}'
LACKS_NFRAMES = '{"tool": "frame_select", "arguments": {"start_time": 1, "end_time": 4}}'
NOT_JSON = '{"tool": "frame_select", "arguments": {"start_time": 1, nframes: 2}}'
LOOK_TWO = block(call(1, 4, 2))

CASES: dict[str, Case] = {
    # Answers.
    "an answer in the first reply": Case((ANSWER,)),
    "a bare answer": Case(("The Answer: C",), answer="C"),
    "an answer beside a tool call wins": Case((LOOK_TWO + "<answer>D</answer>",), answer="D"),
    "an empty answer tag and a call is a call": one_look("<answer></answer>" + LOOK_TWO, TWO),
    # Replies without a usable call.
    "no call and no answer": no_look("I do not know.", "no_answer_no_tool_call"),
    "a null reply is the empty text": no_look(None, "no_answer_no_tool_call"),
    "another tool": no_look(block(call(1, 4, 2)).replace("frame_select", "zoom"), "no_valid_tool_call"),
    # Calls that fail.
    "arguments that are not JSON": no_look(block(NOT_JSON), "arguments_not_json"),
    "no start time": no_look(block(LACKS_START), "no_start_or_end_time"),
    "no nframes": no_look(block(LACKS_NFRAMES), "no_nframes"),
    "all calls of a block fail": no_look(
        block(LACKS_START, NOT_JSON, LACKS_NFRAMES, call(1, 4, 0)),
        f"no_start_or_end_time; arguments_not_json; no_nframes; {FAILED}",
    ),
    "no frames asked for": failing('{"start_time": 1, "end_time": 4, "nframes": 0}'),
    "a resize of zero": no_look(block(call(1, 4, 2, 0)), FAILED, failed_tokens=2),
    "a float number of frames": failing('{"start_time": 1, "end_time": 4, "nframes": 4.0}', tokens=24),
    "a null end time": no_look(block(call(1, None, 2)), FAILED, failed_tokens=12),
    "NaN frames": failing('{"start_time": 1, "end_time": 4, "nframes": NaN}'),
    "more frames than a prompt may hold": no_look(block(call(0, 6, 10**6)), FAILED, failed_tokens=26207),
    # Calls that work.
    "one look": one_look(LOOK_TWO, TWO),
    "the key parameters": one_look(block(call(1, 4, 2, key="parameters")), TWO),
    "further arguments are dropped": one_look(block(call(1, 4, 2, why="look", save_root="/", clamp=[1])), TWO),
    "no resize is full size": one_look(
        block('{"tool": "frame_select", "arguments": {"start_time": 1, "end_time": 4, "nframes": 2}}'), TWO
    ),
    "half size": one_look(block(call(1, 4, 2, 0.5)), Window(1, 4, 2, 0.5)),
    "frames are enlarged when asked for": one_look(block(call(1, 4, 1, 1.5)), Window(1, 4, 1, 1.5)),
    "one frame is the middle one": one_look(block(call(1, 4, 1)), Window(1, 4, 1, 1.0)),
    "two calls are numbered through": one_look(
        block(call(1, 4, 2), call(0, 2, 3, 0.5)), TWO, Window(0, 2, 3, 0.5)
    ),
    "a bad call beside a good one is passed over": one_look(block(LACKS_START, call(1, 4, 2), NOT_JSON), TWO),
    "a failed extraction beside a good one still costs": one_look(
        block(call(1, 4, 2, 0), call(1, 4, 2)), TWO, failed_tokens=2
    ),
    "two rounds": Case((LOOK_TWO, block(call(0, 2, 3, 0.5)), ANSWER), ((TWO,), (Window(0, 2, 3, 0.5),))),
    "numbers given as strings": one_look(block(call("1", "4.0", "2", "0.5")), Window(1, 4, 2, 0.5)),
    "clock strings": one_look(block(call("00:01", "0:00:04", 2)), TWO),
    "times with fractions": one_look(block(call(1.25, 3.75, 3)), Window(1.25, 3.75, 3, 1.0)),
    # Windows. The labels are those of the requested window.
    "a window that ends after the video": one_look(block(call(4, 4507, 3)), Window(4, 4507, 3, 1.0)),
    "a window that starts before the video": one_look(block(call(-5, 2, 3)), Window(-5, 2, 3, 1.0)),
    "a reversed window shows the whole video": one_look(block(call(4, 1, 3)), Window(4, 1, 3, 1.0)),
    "a window after the video shows the whole video": one_look(block(call(90, 95, 2)), Window(90, 95, 2, 1.0)),
    "repeated frames are kept": one_look(block(call(1, 1.1, 5)), Window(1, 1.1, 5, 1.0)),
    # The budget.
    "the budget first lowers the shorter side": one_look(block(call(0, 6, 12)), Window(0, 6, 12, 1.0)),
    "the budget then takes frames and size": one_look(block(call(0, 6, 40)), Window(0, 6, 40, 1.0)),
    "the budget is for each call": one_look(
        block(call(0, 6, 6), call(0, 6, 6)), Window(0, 6, 6, 1.0), Window(0, 6, 6, 1.0)
    ),
    "a float number of frames that the budget cut": one_look(
        block('{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 6, "nframes": 40.0}}'),
        Window(0, 6, 40, 1.0),
    ),
    # The end of the rounds, the server, the prompt, the containers.
    "out of rounds": Case(
        (LOOK_TWO,), ((TWO,), (TWO,), (TWO,)), stop_reason="max_turns_exceeded", answer="", rounds=MAX_TURNS
    ),
    "a refused first request": Case(
        ({"status": 400, "message": "no"},), stop_reason="openai_bad_request", answer="", refused=True, rounds=0
    ),
    "a refused second request": Case(
        (LOOK_TWO, {"status": 400, "message": "no"}),
        ((TWO,),), stop_reason="openai_bad_request", answer="", refused=True, rounds=1,
    ),
    "a server error is tried again": Case(
        ({"status": 500, "times": 1, "text": ANSWER, "type": "InternalServerError"},), asked_twice=True
    ),
    "the items own system turn": Case((ANSWER,), system="You are careful."),
    "webm has its duration in the container": one_look(LOOK_TWO, TWO, video="clip.webm"),
    "mkv has its duration in the container": one_look(LOOK_TWO, TWO, video="folder/clip.mkv"),
}  # fmt: skip

BAD_SAMPLES = {
    "a missing video": {"video": "absent.mp4"},
    "a text file for a video": {"video": "text.mp4"},
    "an empty file for a video": {"video": "empty.mp4"},
    "a folder for a video": {"video": "folder"},
    "a path out of the video root": {"video": "../questions.jsonl"},
    "an absolute path": {"video": "/etc/passwd"},
    "a sound file": {"video": "sound.wav"},
    "no user turn": {},
}


@dataclass(frozen=True)
class Played:
    run: Run
    journal: Journal
    decoded: Mapping[str, Decoded]
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def owed(self, key: str) -> Conversation:
        case, question = CASES[key], f"[[{key}]] What is shown?\nA. one\nB. two"
        talk = Conversation(question, opening(question, length_s=5, short_side=HEIGHT, system=case.system))
        texts = [reply["text"] if isinstance(reply, Mapping) and "text" in reply else reply for reply in case.replies]
        for number in range(self.rounds(key)):
            text = texts[min(number, len(texts) - 1)]
            talk.reply(text if isinstance(text, str) else "")
            if number < len(case.looks):
                talk.show(self.decoded[case.video], *(after_budget(look) for look in case.looks[number]))
        return talk

    def rounds(self, key: str) -> int:
        case = CASES[key]
        return len(case.replies) if case.rounds is None else case.rounds

    def owed_requests(self, key: str) -> list[Any]:
        case, talk = CASES[key], self.owed(key)
        refused = [talk.messages] if case.refused else []
        return talk.requests[:1] * case.asked_twice + talk.requests + refused


def after_budget(look: Window) -> Window:
    nframes, resize, _ = fit(look)
    return Window(look.start_s, look.end_s, int(nframes), resize)


def fit(look: Window) -> tuple[float, float, int]:
    return budgeted(look.nframes, look.resize, width=WIDTH, height=HEIGHT, budget=BUDGET, maxp=MAXP)


def make_videos(folder: Path) -> dict[str, Decoded]:
    size: dict[str, Any] = {"frames": FRAMES, "fps": FPS, "width": WIDTH, "height": HEIGHT}
    make_video(folder / "clip.mp4", **size)
    make_video(folder / "clip.webm", codec="libvpx", **size)
    make_video(folder / "folder" / "clip.mkv", **size)
    (folder / "text.mp4").write_text("no video", encoding="utf-8")
    (folder / "empty.mp4").touch()
    (folder / "sound.wav").write_bytes(wav())
    return {name: decode_all(folder / name) for name in ("clip.mp4", "clip.webm", "folder/clip.mkv")}


def wav() -> bytes:
    """A second of silence: 8 kHz, 8 bit, mono."""
    head = b"WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\x40\x1f\0\0"
    return b"RIFF" + (len(head) + 8000).to_bytes(4, "little") + head + b"\x80" * 8000


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Iterator[Played]:
    rows = [row(key, video=case.video, system=case.system) for key, case in CASES.items()]
    bad = [row(key, **more) for key, more in BAD_SAMPLES.items()]
    bad[-1]["prompt"] = [{"role": "system", "content": "Only this."}]
    replies = {key: case.replies for key, case in CASES.items()}
    with ScriptedServer(Script(replies)) as server:
        bench = Bench(tmp_path_factory.mktemp("protocol"), server.base_url, tokenizer_dir)
        decoded = make_videos(bench.videos)
        bench.write([*bad, *rows])
        flags = f"-v {BUDGET} --maxp {MAXP} --max-turns {MAX_TURNS} --max-concurrent 4".split()
        run = bench.run(*flags, timeout_s=200)
        keys = [*BAD_SAMPLES, *CASES]
        records = {keys[record["index"]]: record for record in run.records()}
        yield Played(run, server.journal, decoded, records)


def test_the_run_finishes_with_one_record_for_each_item_and_nothing_is_asked_that_no_case_expects(
    played: Played,
) -> None:
    assert played.run.code == 0, played.run.said
    assert [r["index"] for r in played.run.records()] == list(range(len(CASES) + len(BAD_SAMPLES)))
    assert played.journal.unexpected == []


@pytest.mark.parametrize("key", CASES)
def test_requests_and_record_are_the_protocols_message_for_message_and_pixel_for_pixel(
    played: Played, key: str
) -> None:
    record, case = played.records[key], CASES[key]
    assert [list(seen.messages) for seen in played.journal.of(key)] == played.owed_requests(key)
    assert (record["stop_reason"], record["answer"], record["gt"]) == (case.stop_reason, case.answer, "B"), record
    assert ("error" in record) == (case.stop_reason == "openai_bad_request")
    looks = [look for round_ in case.looks for look in round_]
    owed = {
        **played.owed(key).record(),
        "estimated_visual_tokens": sum(fit(look)[2] for look in looks) + case.failed_tokens,
    }
    assert {name: record[name] for name in owed} == owed
    steps = record["trajectory"]
    assert len(steps) == record["num_rounds"]
    assert all(step["seconds"] >= 0 and step["finish_reason"] == "stop" for step in steps)
    assert not steps or steps[-1]["usage"]["total_tokens"] == record["total_tokens"]


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if case.looks])
def test_the_trajectory_shows_what_was_asked_budgeted_executed_and_seen(played: Played, key: str) -> None:
    case, trajectory = CASES[key], played.records[key]["trajectory"]
    assert len(trajectory) >= len(case.looks)
    for step, looks in zip(trajectory, case.looks, strict=False):
        calls = [one for one in step["calls"] if one["error"] is None]
        assert len(calls) == len(looks)
        for one, look in zip(calls, looks, strict=True):
            check_call(one, look, played.decoded[case.video])


def check_call(one: Mapping[str, Any], look: Window, video: Decoded) -> None:
    owed = after_budget(look)
    nframes, resize, tokens = fit(look)
    assert (one["budgeted"]["nframes"], one["budgeted"]["resize"], one["tokens"]) == (nframes, resize, tokens)
    images = [image for _, image in owed.frames(video)]
    done = one["executed"]
    assert len(done["indices"]) == len(done["times_s"]) == len(one["frames"]) == len(images)
    assert done["times_s"] == pytest.approx([video.times_s[index] for index in done["indices"]], abs=1e-3)
    assert (done["width"], done["height"]) == (images[0]["w"], images[0]["h"])
    assert video.begin_s <= done["start_s"] < done["end_s"] <= video.end_s + 1e-9
    assert done["decoder"] == "av"
    assert done["seconds"] >= 0
    assert all(Path(path).is_file() for path in one["frames"])


def test_the_trajectory_names_the_frame_indices_that_the_protocol_owes(played: Played) -> None:
    (step, _) = played.records["times with fractions"]["trajectory"]
    assert step["calls"][0]["executed"]["indices"] == [12, 25, 37]


def test_the_trajectory_says_why_a_call_failed_and_what_it_asked(played: Played) -> None:
    (step,) = played.records["all calls of a block fail"]["trajectory"]
    assert [one["error"] for one in step["calls"]] == [
        "no_start_or_end_time", "arguments_not_json", "no_nframes", FAILED,
    ]  # fmt: skip
    assert step["calls"][0]["asked"] == {"end_time": 4, "nframes": 2}
    assert all(one["frames"] == [] for one in step["calls"])


@pytest.mark.parametrize("key", BAD_SAMPLES)
def test_a_bad_sample_is_an_exception_record_and_never_reaches_the_model(played: Played, key: str) -> None:
    record = played.records[key]
    assert (record["stop_reason"], record["answer"], record["messages"]) == ("exception", "", [])
    assert [record[name] for name in ("num_rounds", "total_tokens", "estimated_visual_tokens")] == [0, 0, 0]
    assert record["error"]
    assert "\n" not in record["error"]
    assert played.journal.of(key) == []


def test_a_record_says_how_long_the_video_is_where_it_could_be_opened(played: Played) -> None:
    assert {played.records[key]["video_duration_s"] for key, case in CASES.items() if case.video == "clip.mp4"} == {
        FRAMES / FPS
    }
    assert played.records["no user turn"]["video_duration_s"] == FRAMES / FPS
    assert [key for key in BAD_SAMPLES if "video_duration_s" in played.records[key]] == ["no user turn"]


def test_nothing_is_written_beside_the_frame_root_and_the_output_folder(played: Played) -> None:
    folder = played.run.output_dir.parent
    assert {path.name for path in folder.iterdir()} == {"videos", "questions.jsonl", "out", "frames"}
