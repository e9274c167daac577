"""The measured cases of the reference, played through eval-eva.py as a process: messages, pixels and records.

Where the reference crashed, `OWED` says case by case what is owed instead, and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import GOLDEN, Bench, Run, row
from restated import Conversation, Window, decode_all, opening
from scripted_server import MODEL, Journal, Script, ScriptedServer

CASES: dict[str, Any] = {
    name: case
    for file in ("golden.json", "golden_more.json")
    for name, case in json.loads((GOLDEN / file).read_text(encoding="utf-8")).items()
}


@dataclass(frozen=True)
class Owed:
    """A sample that the reference crashed on and that must now end as `stop_reason`."""

    why: str
    stop_reason: str
    answer: str = ""
    visual_tokens: int = 0
    length_s: int = 0
    short_side: int = 0
    windows: tuple[Window, ...] = ()


TWO_LOOKS = (Window(1, 11, 5, 0.6), Window(7, 100, 3, 1.0))
OWED = {
    "times-str-clock": Owed(
        "clock strings are read as times", "answer_found", "B", 264, 41, 360, (Window(3, 5, 4, 0.5),)
    ),
    "resize-str": Owed(
        "numbers given as strings are read as numbers", "answer_found", "B", 264, 41, 360, (Window(0, 5, 4, 0.5),)
    ),
    "content-null": Owed("a null reply is the empty text", "no_answer_no_tool_call", "", 0, 41, 360),
    "v-vp8.webm": Owed("the stream has no duration: the container's", "answer_found", "B", 1457, 20, 360, TWO_LOOKS),
    "v-av1.mp4": Owed("AV1 is decoded, and chosen by time", "answer_found", "B", 1457, 20, 360, TWO_LOOKS),
    "missing-video": Owed("there is no video to show", "exception"),
    "v-text.mp4": Owed("a text file is no video", "exception"),
    "v-audioonly.m4a": Owed("there is no video stream", "exception"),
}
WRONG_FRAMES_IN_REFERENCE = {"v-opengop.mp4": TWO_LOOKS}
MEASURED = sorted(set(CASES) - set(OWED))
CRASHED = sorted(set(CASES) & set(OWED))


@dataclass(frozen=True)
class Played:
    run: Run
    journal: Journal
    records: Mapping[str, Mapping[str, Any]]

    def requests(self, name: str) -> list[list[Mapping[str, Any]]]:
        return [list(seen.messages) for seen in self.journal.of(name)]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Iterator[Played]:
    """All cases in one run."""
    rows = [
        row(name, video=case["video"], truth=case["ground_truth"], system=case["system"])
        for name, case in CASES.items()
    ]
    for line, case in zip(rows, CASES.values(), strict=True):
        line["prompt"][-1]["content"] = case["question"]
    with ScriptedServer(Script({name: case["replies"] for name, case in CASES.items()})) as server:
        bench = Bench(tmp_path_factory.mktemp("golden"), server.base_url, tokenizer_dir, "golden")
        bench.write(rows)
        run = bench.run("--max-concurrent", "4", video_root=str(GOLDEN / "videos"), timeout_s=300)
        records = {list(CASES)[index]: record for index, record in run.by_index().items()}
        yield Played(run, server.journal, records)


def without_pixels(messages: list[Any]) -> list[Any]:
    return json.loads(json.dumps(messages), object_hook=lambda d: {k: v for k, v in d.items() if k != "sha"})


def owed_conversation(name: str) -> Conversation:
    """The whole sample as it is owed, from the protocol alone."""
    case, owed = CASES[name], OWED[name]
    start = opening(case["question"], length_s=owed.length_s, short_side=owed.short_side)
    talk = Conversation(case["question"], start)
    for window, reply in zip(owed.windows, case["replies"], strict=False):
        talk.reply(reply).show(decode_all(GOLDEN / "videos" / case["video"]), window)
    last = case["replies"][len(owed.windows)]
    return talk.reply(last if isinstance(last, str) else "")


def test_the_run_finishes_with_a_record_of_each_case_by_index_and_asks_nothing_else(played: Played) -> None:
    assert played.run.code == 0, played.run.stderr
    assert [record["index"] for record in played.run.records()] == list(range(len(CASES)))
    assert played.journal.unexpected == []


def test_sampling_is_temperature_0_and_2048_tokens_of_the_served_model_and_nothing_else(played: Played) -> None:
    sent = [{k: v for k, v in seen.body.items() if k != "messages"} for seen in played.journal.seen]
    assert sent
    for settings in sent:
        assert settings == {"model": MODEL, "temperature": 0, "max_tokens": 2048}


@pytest.mark.parametrize("name", MEASURED)
def test_messages_and_frames_equal_the_reference(played: Played, name: str) -> None:
    sent = played.requests(name)
    owed = [request["messages"] for request in CASES[name]["requests"]]
    if CASES[name]["pixels"] == "exact":
        assert sent == owed
    else:
        assert name in WRONG_FRAMES_IN_REFERENCE
        assert without_pixels(sent) == without_pixels(owed)


@pytest.mark.parametrize("name", sorted(WRONG_FRAMES_IN_REFERENCE))
def test_where_the_reference_decodes_wrong_frames_the_right_ones_are_sent(played: Played, name: str) -> None:
    video = decode_all(GOLDEN / "videos" / CASES[name]["video"])
    last = played.requests(name)[-1]
    sent = [[p for p in message["content"] if p["type"] == "image"] for message in last if message["role"] == "tool"]
    assert sent == [[image for _, image in w.frames(video)] for w in WRONG_FRAMES_IN_REFERENCE[name]]


@pytest.mark.parametrize("name", MEASURED)
def test_the_record_equals_the_reference(played: Played, name: str) -> None:
    record = dict(played.records[name])
    owed = dict(CASES[name]["record"])
    assert ("error" in record) == ("error" in owed)
    assert "BadRequestError" in record.pop("error", "BadRequestError")
    owed.pop("error", None)
    assert {key: record.get(key) for key in owed} == owed


@pytest.mark.parametrize("name", CRASHED)
def test_where_the_reference_crashed_the_sample_ends_as_the_protocol_owes(played: Played, name: str) -> None:
    record, owed = played.records[name], OWED[name]
    assert record["stop_reason"] == owed.stop_reason, f"{owed.why}; error: {record.get('error')}"
    assert (record["answer"], record["gt"]) == (owed.answer, CASES[name]["ground_truth"])
    assert ("error" in record) == (owed.stop_reason == "exception")


@pytest.mark.parametrize("name", [name for name in CRASHED if OWED[name].stop_reason != "exception"])
def test_where_the_reference_crashed_messages_frames_and_counts_are_the_protocols(played: Played, name: str) -> None:
    talk = owed_conversation(name)
    assert played.requests(name) == talk.requests
    owed = {**talk.record(), "estimated_visual_tokens": OWED[name].visual_tokens}
    assert {key: played.records[name][key] for key in owed} == owed


@pytest.mark.parametrize("name", [name for name in CRASHED if CASES[name]["requests"]])
def test_until_the_reference_crashed_the_messages_are_its_own(played: Played, name: str) -> None:
    before = [request["messages"] for request in CASES[name]["requests"]]
    assert played.requests(name)[: len(before)] == before


@pytest.mark.parametrize("name", [name for name in CRASHED if OWED[name].stop_reason == "exception"])
def test_a_video_that_cannot_be_shown_is_an_exception_record_and_no_model_call(played: Played, name: str) -> None:
    record = played.records[name]
    assert played.requests(name) == []
    assert record["messages"] == []
    assert [record[key] for key in ("num_rounds", "total_tokens", "estimated_visual_tokens")] == [0, 0, 0]
    assert CASES[name]["video"] in record["error"], "a person must learn which file it was"
