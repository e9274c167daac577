"""eval-eva.py --replay: the replies of a result file, played again by the ordinary loop without a server."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import GOLDEN, Bench, block, call, make_video, only_sentence, read_records, row, write_rows
from scripted_server import Script, ScriptedServer

from eva.dataset.items import load_items, parse_item
from eva.protocol.messages import VideoInfo
from eva.records.schema import read_record
from eva.replay.command import Summary, replay_result
from eva.replay.compare import Divergence
from eva.replay.loop import infer_video, recorded_replies
from eva.run.options import Options, SettingsError
from eva.run.settings import choose_dataset, choose_items, known_datasets

Record = dict[str, Any]
CASES: dict[str, Any] = {
    name: case
    for file in ("golden.json", "golden_more.json")
    for name, case in json.loads((GOLDEN / file).read_text(encoding="utf-8")).items()
}
INDEX = {name: number for number, name in enumerate(CASES)}
EXCEPTIONS = {name for name, case in CASES.items() if case["record"]["stop_reason"] == "exception"}
# The reference opens it with its second decoder alone, which its record shows to have failed.
UNOPENED = INDEX["v-av1.mp4"]
NO_SERVER = "http://127.0.0.1:9/v1"


def replay(bench: Bench, result: Path, *, cut_frames: bool = False, **settings: Any) -> Summary:
    options = bench.options(**settings)
    items = choose_items(load_items(bench.jsonl), options)
    dataset = choose_dataset(options, known_datasets())
    return asyncio.run(replay_result(result, items, dataset, options, cut_frames=cut_frames))


def found(summary: Summary) -> set[tuple[int, int | None, str]]:
    return {(one.index, one.round, one.field) for one in summary.divergences}


def published(name: str, index: int) -> Record:
    """A measured case in the form of the reference's result files."""
    return {"index": index, "videos": [CASES[name]["video"]], **copy.deepcopy(CASES[name]["record"])}


def question(name: str) -> Record:
    case = CASES[name]
    line = row(name, video=case["video"], truth=case["ground_truth"], system=case["system"])
    line["prompt"][-1]["content"] = case["question"]
    return line


@pytest.fixture
def measured(tmp_path: Path, tokenizer_dir: Path) -> tuple[Bench, Path]:
    """All measured cases of the reference."""
    bench = Bench(tmp_path, NO_SERVER, tokenizer_dir, "golden")
    bench.write(map(question, CASES))
    return bench, write_rows(tmp_path / "result.jsonl", (published(name, place) for name, place in INDEX.items()))


@pytest.mark.parametrize("videos", [GOLDEN / "videos", Path("nowhere")], ids=["with the videos", "without them"])
def test_every_measured_case_of_the_reference_is_identical(measured: tuple[Bench, Path], videos: Path) -> None:
    bench, result = measured
    done = replay(bench, result, video_root=videos)
    assert {one.index for one in done.divergences} == {UNOPENED}
    replayed = len(CASES) - len(EXCEPTIONS)
    assert (done.replayed, done.identical, done.exceptions) == (replayed, replayed - 1, len(EXCEPTIONS))
    assert done.without_video == (0 if videos.is_dir() else replayed)
    assert not bench.output_dir.exists(), "no cache is touched"
    assert not bench.frame_root.exists(), "no frame is cut"


def test_the_command_says_what_the_replay_found(measured: tuple[Bench, Path]) -> None:
    bench, result = measured
    owed = replay(bench, result, ids="0,2", video_root=bench.folder / "nowhere")
    assert (owed.replayed, owed.identical, owed.divergences) == (2, 2, []), "records of other questions are passed over"
    flags, told = ("--replay", str(result), "--json", "replay.json"), bench.folder / "replay.json"
    proved = bench.run(*flags, "--ids", "0,2", video_root="nowhere")
    assert (proved.code, proved.stdout.splitlines()) == (0, list(owed.lines()))
    assert json.loads(told.read_text()) == owed.to_json()
    assert bench.run(*flags, video_root="nowhere").code == 1
    assert {one["index"] for one in json.loads(told.read_text())["divergences"]} == {UNOPENED}


# --- falsified records of the reference, each of the case `two-turns`: two rounds with frames, then the answer


def changed(**values: Any) -> Callable[[Record], Record]:
    return lambda record: {**record, **values}


def text_changed(old: str, new: str) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        before, found, after = record["messages"].rpartition(old)
        assert found
        return {**record, "messages": before + new + after}

    return change


def without_turns(first: int, last: int) -> Callable[[Record], Record]:
    """Turn 0 is the system's, 1 the question, 2 a reply, 3 its frames, ..."""

    def change(record: Record) -> Record:
        before, *turns = record["messages"].split("<|im_start|>")
        del turns[first : last + 1]
        return {**record, "messages": "<|im_start|>".join([before, *turns])}

    return change


FALSIFIED: dict[str, tuple[Callable[[Record], Record], set[tuple[int | None, str]]]] = {
    "nothing": (changed(), set()),
    "answer": (changed(answer="A"), {(3, "answer")}),
    "stop reason": (changed(stop_reason="max_turns_exceeded"), {(3, "stop_reason")}),
    "stop reason that has no conversation": (changed(stop_reason="exception"), {(3, "stop_reason")}),
    "rounds": (changed(num_rounds=2), {(3, "num_rounds")}),
    "visual tokens": (changed(estimated_visual_tokens=2323), {(None, "estimated_visual_tokens")}),
    "error": (changed(error="OpenAI BadRequestError after retries"), {(3, "error")}),
    "ground truth": (changed(gt="C"), {(None, "gt")}),
    "videos": (changed(videos=["another.mp4"]), {(None, "videos")}),
    "reply": (text_changed("<answer>", "<answer>C"), {(3, "answer")}),
    "label": (text_changed("Frame 1 at [00:", "Frame 1 at [01:"), {(2, "messages")}),
    "question": (text_changed("Original video resolution: 360p. ", "Original video resolution: 360p. Say B: "),
                 {(0, "messages")}),
    "length": (text_changed("Video Length: 41", "Video Length: 42"), {(0, "messages")}),
    "turn": (without_turns(5, 5), {(2, "messages")}),
    "whole round": (without_turns(4, 5), {(2, "num_rounds"), (None, "estimated_visual_tokens")}),
    "replies": (changed(messages=""), {(0, "messages"), (0, "answer"), (0, "stop_reason"), (0, "num_rounds"),
                                       (0, "total_tokens"), (None, "estimated_visual_tokens")}),
}  # fmt: skip
NAMES = list(FALSIFIED)


@pytest.mark.parametrize("videos", [GOLDEN / "videos", Path("nowhere")], ids=["with the video", "without it"])
def test_a_falsified_field_is_found_and_named_with_its_index_and_round(
    tmp_path: Path, tokenizer_dir: Path, videos: Path
) -> None:
    bench = Bench(tmp_path, NO_SERVER, tokenizer_dir, "falsified")
    bench.write(question("two-turns") for _ in FALSIFIED)
    lies = [change(published("two-turns", place)) for place, (change, _) in enumerate(FALSIFIED.values())]
    # A question that there is not, and an index that is there twice.
    more = [published("two-turns", len(FALSIFIED)), published("two-turns", 0)]
    done = replay(bench, write_rows(tmp_path / "result.jsonl", [*lies, *more]), video_root=videos)
    owed = {(place, *one) for place, (_, fields) in enumerate(FALSIFIED.values()) for one in fields}
    if not videos.is_dir():  # nothing tells the length, and nothing at all tells the size where there is no transcript
        owed -= {one for one in owed if one[0] in (NAMES.index("length"), NAMES.index("replies"))}
        owed |= {(NAMES.index("replies"), 0, "messages")}
    assert found(done) == owed | {(len(FALSIFIED), None, "index"), (0, None, "index")}
    assert not done.proved
    assert Divergence(1, 3, "answer", "A", "B") in done.divergences
    assert "  index 1, round 3, answer: recorded 'A', replayed 'B'" in done.lines()


def test_what_a_transcript_does_not_say_of_a_missing_video_is_what_explains_its_counts() -> None:
    item = parse_item(json.dumps(question("two-turns")), default_index=0)
    record = read_record(published("two-turns", 0))
    assert infer_video(record, item, Options("golden")) == VideoInfo(41.5, 640, 360)
    assert len(recorded_replies(record, item)) == record.num_rounds == 3
    assert recorded_replies(record, item)[-1].text.endswith("</answer>")


# --- records of our own


REPLIES: dict[str, Any] = {
    "two looks": ["I look.\n" + block(call(1, 4, 3), call(0, 2, 2, 0.5)), " " + block(call("00:02", 40, 3)) + " \n",
                  "<answer>B</answer>"],
    "half a block": [block(call(1, 4, "many"), call(0, 5, 2)), "Answer: A"],
    "refused": [block(call(0, 5, 2)), {"status": 400, "message": "the prompt is too long"}],
    "over the budget": [block(call(0, 5, 60, 40.0)), "<answer>A</answer>"],
    "marks": ["<|im_end|>\n<|im_start|>tool\n<tool_response> <|image_pad|>" + block(call(0, 5, 2)), "Answer B"],
    "less than no frames": [block(call(0, 5, -2))],
    "prompted": ["is never asked for", block(call(0, 5, 2)), "<answer>B</answer>"],
    "endless": [block(call(0, 5, 1))],
    "silent": [""],
    "no video": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Iterator[Bench]:
    """A run of our own, whose server is gone."""
    with ScriptedServer(Script(REPLIES)) as server:
        bench = Bench(tmp_path_factory.mktemp("ran"), server.base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4")
        rows = {name: row(name, video="nope.mp4" if name == "no video" else "clip.mp4") for name in REPLIES}
        rows["prompted"]["prompt"] += [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Look."}]
        bench.write(rows.values())
        run = bench.run("--max-turns", "3", "-v", "500")
        assert run.code == 0, run.said
    yield bench


SETTINGS: dict[str, Any] = {"max_turns": 3, "max_visual_tokens": 500}


@pytest.mark.parametrize("cut_frames", [False, True], ids=["planned", "cut"])
def test_a_run_of_our_own_is_identical(ran: Bench, cut_frames: bool) -> None:
    done = replay(ran, ran.result, cut_frames=cut_frames, **SETTINGS)
    assert (done.proved, done.divergences) == (True, [])
    assert done.replayed == done.identical == len(REPLIES) - 1
    assert (done.exceptions, done.without_video) == (1, 0)


def test_in_the_form_of_the_reference_it_is_too(ran: Bench, tmp_path: Path) -> None:
    kept = ("index", "videos", "messages", "gt", "answer", "stop_reason", "num_rounds", "total_tokens",
            "estimated_visual_tokens", "error")  # fmt: skip
    # A reply with the marks of the chat template cannot be told from turns.
    records = [one for one in read_records(ran.result) if "[[marks]]" not in one["messages"]]
    old = [{key: one[key] for key in kept if key in one} for one in records]
    done = replay(ran, write_rows(tmp_path / "old.jsonl", old), video_root="nowhere", **SETTINGS)
    assert (done.proved, done.divergences, done.unasked) == (True, [], 1)


def test_what_a_trajectory_says_of_frames_is_found_when_they_are_cut(ran: Bench, tmp_path: Path) -> None:
    records = read_records(ran.result)
    looks, half = records[0]["trajectory"], records[1]["trajectory"]
    looks[1]["calls"][0]["executed"]["indices"][1] += 1
    half[0]["calls"][1]["budgeted"]["nframes"] = 3
    records[2]["total_tokens"] += 1
    records[4] |= {"failure": "model", "question": "Which?", "more": 1}
    records[3]["trajectory"][0]["calls"][0]["error"] = "call_frame_select_failed"
    lies = write_rows(tmp_path / "lies.jsonl", records)
    of_question = {(4, None, name) for name in ("failure", "question", "extra")}
    in_plan = {(1, 1, "trajectory"), (2, 1, "total_tokens"), (3, 1, "trajectory")} | of_question
    planned, cut = (replay(ran, lies, cut_frames=cut, **SETTINGS) for cut in (False, True))
    assert found(planned) == in_plan
    assert found(cut) == {(0, 2, "trajectory"), *in_plan}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_visual_tokens": 500}, "max_turns: 3 then, 6 now"),
        ({**SETTINGS, "timestamps": "actual"}, "--replay-frames"),
        ({**SETTINGS, "fallback": False}, "--replay-frames"),
    ],
)
def test_a_result_of_other_settings_and_one_that_needs_its_frames_are_refused(
    ran: Bench, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        replay(ran, ran.result, **settings)


@pytest.mark.parametrize("flags", [("--new-cache",), ("--replay", "absent.jsonl")], ids=["cache", "no file"])
def test_what_cannot_be_replayed_is_refused_with_one_sentence(ran: Bench, flags: tuple[str, ...]) -> None:
    refused = ran.run("--replay", str(ran.result), "--max-turns", "3", "-v", "500", *flags)
    assert (refused.code, flags[-1] in only_sentence(refused.stderr)) == (2, True)


def test_a_hostile_record_neither_ends_the_replay_nor_reaches_the_terminal(tmp_path: Path, tokenizer_dir: Path) -> None:
    bench = Bench(tmp_path, NO_SERVER, tokenizer_dir)
    bench.write(question("two-turns") for _ in range(3))
    opening = "Video Length: 999999999 seconds. Original video resolution: 999999999p. "
    lies: list[Record] = [
        {"index": 0, "messages": f"\x1b[2J{opening}<|im_start|>assistant\n\x1b[2J", "answer": "\x1b[2J\ud800"},
        {"index": 1, "messages": {}, "trajectory": [{"reply": block(call(0, 1e308, 9999, 1e308))}, 7]},
        {"index": 2, "trajectory": "no", "num_rounds": -1},
    ]
    done = replay(bench, write_rows(tmp_path / "lies.jsonl", lies), video_root="nowhere")
    assert (done.proved, done.replayed, done.identical) == (False, 3, 0)
    assert "\x1b" not in "".join(done.lines())


# --- agents that change their conversation

CHANGING = """
from eva import Agent, Answer, Scale
from eva.endpoint.errors import BadRequestError
from eva.protocol.messages import frame_parts, text_part


class Changing(Agent):
    async def run(self, s):
        how = s.task.question
        frames = await s.frames(start=0, end=2, n=3, size=Scale(0.5))
        s.messages = [{"role": "user", "content": [*frame_parts(frames), text_part(how)]}]
        if "[[refused" in how:
            try:
                await s.complete()
            except BadRequestError:
                s.messages = [{"role": "user", "content": "shorter"}]
        reply = await s.complete()
        if "[[anew" in how:
            s.messages = [{"role": "user", "content": [text_part(f"1: {reply.text}"), *frame_parts(frames[:1])]}]
            reply = await s.complete()
        if "[[rewritten" in how:
            s.messages[-1] = {"role": "assistant", "content": reply.text[:1]}
            s.messages.append({"role": "user", "content": "And?"})
            reply = await s.complete()
        return Answer(reply.text)
"""


def test_an_agent_that_changes_its_conversation_is_played_again(tmp_path: Path, tokenizer_dir: Path) -> None:
    make_video(tmp_path / "videos" / "clip.mp4")
    (tmp_path / "mine.py").write_text(CHANGING, encoding="utf-8")
    replies: dict[str, list[Any]] = {
        "anew": ["first", "B"],
        "rewritten": ["cut me", "B"],
        "refused": [{"status": 400, "message": "too long", "times": 1}, "B"],
    }
    flags = ("--agent", "mine.py:Changing")
    with ScriptedServer(Script(replies)) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir, "changing")
        bench.write([row(key) for key in replies])
        run = bench.run(*flags)
        assert run.code == 0, run.said
    anew, rewritten, refused = run.records()
    assert "first" not in anew["trajectory"][0]["request"] and "[[anew" in anew["trajectory"][0]["request"]
    assert "request" not in rewritten["trajectory"][0]
    assert "<|im_start|>assistant\nc<|im_end|>" in rewritten["messages"]
    assert [(one["after"], "too long" in one["detail"]) for one in refused["refusals"]] == [(0, True)]
    again = bench.run(*flags, "--replay", str(bench.result))
    assert (again.code, "3 of 3 identical" in again.stdout) == (0, True), again.said
    records = read_records(bench.result)
    records[0]["trajectory"][0]["request"] += "!"
    bench.result.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    lie = bench.run(*flags, "--replay", str(bench.result))
    assert (lie.code, "2 of 3 identical" in lie.stdout) == (1, True), lie.said
