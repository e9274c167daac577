"""Records: what a run writes, what any line says, and what the records of before and of the reference still say.

tests/old_records/ holds a cache as the version before the schema number left it, and the same run in the form of the
reference. The runs of the tests here are of the same questions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, Run, block, call, called, make_video, read_records, row
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import Script, ScriptedServer

from eva.json_text import is_number
from eva.protocol.reply import Usage
from eva.protocol.stop_reasons import EXCEPTION, INFRASTRUCTURE, MODEL
from eva.records.cache import encode
from eva.records.outcome import Outcome
from eva.records.schema import (
    OWN_KEYS,
    SCHEMA,
    Call,
    Executed,
    Record,
    Round,
    Waited,
    read_record,
    record_json,
    to_json,
)

OLD = Path(__file__).parent / "old_records"
ANSWER = "<answer>B</answer>"
REPLIES = {
    "one look": ["I look.\n" + block(call(1, 4, 3)), f"It is grey. {ANSWER}"],
    "two calls": ["Both.\n" + block(call(0, 2, 2, 0.5), call("00:02", 40, 3)), "<answer>A</answer>"],
    "silent": ["I cannot tell."],
    "no video": [],
    "bad call": ["Plan." + block(call(1, 4, "many"))],
}
INDEX = {name: number for number, name in enumerate(REPLIES)}
# Those of the reference, of our additions before the schema number, and of those since, as they stand in a line.
REFERENCE = ("index", "videos", "messages", "gt", "answer", "stop_reason", "num_rounds", "total_tokens",
             "estimated_visual_tokens")  # fmt: skip
BEFORE = (*REFERENCE, "error", "error_detail", "question_type", "time_reference", "failure", "video_file",
          "video_duration_s", "trajectory", "seconds")  # fmt: skip
SINCE = (*BEFORE, "question", "schema", "waited")
CALL = ("asked", "budgeted", "executed", "frames", "tokens", "error", "reason", "labels_s")


# --- any value in any field

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(OWN_KEYS - {"index"}))
PART = st.sampled_from(
    ["reply", "usage", "seconds", "finish_reason", "calls", "prompt_tokens", *CALL, "start_s", "indices", "times_s",
     "width", "decoder", "nframes", "resize", "start_time", "end_time"]
)  # fmt: skip
DEEP = st.recursive(JSON, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PART, inner, max_size=4))
LINES = st.dictionaries(FIELDS, DEEP).flatmap(
    lambda held: st.fixed_dictionaries({"index": st.integers(), **{key: st.just(value) for key, value in held.items()}})
)


def old_outcome(record: dict[str, Any]) -> Outcome:
    """What the version before the schema made of a record, with what is judged as the reference judges it."""

    def said(name: str) -> str:
        return "" if record.get(name) is None else str(record[name])

    def judged(name: str, missing: str = "") -> str:
        return str(record.get(name, missing))

    def counted(name: str) -> int | float | None:
        value: Any = record.get(name)
        return value if is_number(value) and 0 <= value <= 2**53 else None

    videos = record.get("videos")
    failure = INFRASTRUCTURE if judged("stop_reason") == EXCEPTION else "" if judged("answer").strip() else MODEL
    return Outcome(
        index=record["index"],
        ground_truth=judged("gt"),
        answer=judged("answer"),
        stop_reason=judged("stop_reason", "missing_stop_reason"),
        num_rounds=counted("num_rounds"),
        total_tokens=counted("total_tokens"),
        error=said("error"),
        video=str(videos[0]) if isinstance(videos, list) and videos else "",
        seconds=counted("seconds"),
        failure=said("failure") if "failure" in record else failure,
    )


@settings(deadline=None)
@given(LINES)
def test_any_record_scores_as_before(value: dict[str, Any]) -> None:
    record = read_record(value)
    assert replace(record.outcome, visual_tokens=None, agent="eva") == old_outcome(value)
    assert read_record(encode(value)).outcome == record.outcome


@pytest.mark.parametrize("line", [b"{", b"[]", b"7", b"{}", b'{"index": "1"}', b'{"index": true}', b'{"index": null}'])
def test_what_has_no_index_is_not_a_record(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"index|object|JSON|property name"):
        read_record(line)


# --- what is written is read back

TEXT = st.text(max_size=20)
COUNT = st.integers(0, 2**53)
NUMBER = st.none() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.none() | st.lists(NUMBER, max_size=3).map(tuple)
EXECUTED = st.builds(
    Executed, NUMBER, NUMBER, NUMBERS, NUMBERS, NUMBER, NUMBER, decoder=st.none() | TEXT, seconds=NUMBER
)
CALLS = st.builds(
    lambda labels_s, **more: Call(frames=tuple(map(str, labels_s)), labels_s=labels_s, **more),
    labels_s=st.lists(st.integers(), max_size=3).map(tuple),
    asked=TEXT | st.dictionaries(TEXT, COUNT, max_size=3),
    budgeted=st.none(),
    executed=st.none() | EXECUTED,
    tokens=COUNT,
    error=st.none() | TEXT,
    reason=st.none() | TEXT,
)
ROUNDS = st.builds(
    Round,
    TEXT,
    st.builds(Usage, COUNT, COUNT, COUNT, st.none() | COUNT),
    NUMBER,
    st.none() | TEXT,
    st.lists(CALLS).map(tuple),
)
RECORDS = st.builds(
    Record,
    index=st.integers(),
    videos=st.lists(TEXT, max_size=2).map(tuple),
    messages=TEXT,
    gt=TEXT,
    answer=TEXT,
    stop_reason=TEXT,
    num_rounds=COUNT,
    total_tokens=COUNT,
    estimated_visual_tokens=COUNT,
    error=TEXT,
    error_detail=TEXT,
    extra=st.dictionaries(TEXT.filter(lambda key: key not in OWN_KEYS), JSON),
    failure=st.none() | TEXT,
    video_file=TEXT,
    video_duration_s=st.none() | st.floats(0.001, 1e9),
    trajectory=st.none() | st.lists(ROUNDS.map(to_json), max_size=2),
    seconds=st.none() | st.floats(0, 1e6),
    question=TEXT,
    schema=st.just(SCHEMA),
    waited=st.none() | st.builds(Waited, NUMBER, NUMBER, NUMBER),
)


@settings(deadline=None)
@given(RECORDS.filter(lambda record: "nan" not in repr(record.extra)))
def test_a_record_is_read_back_as_it_was_written(record: Record) -> None:
    assert read_record(encode(record_json(record))) == record


@settings(deadline=None)
@given(ROUNDS)
def test_a_round_is_read_back_as_it_was_written(round_: Round) -> None:
    written = json.loads(json.dumps(to_json(round_)))
    assert read_record({"index": 0, "trajectory": [written]}).rounds == (round_,)


def test_a_key_of_the_annotation_with_a_newer_name_stays_the_annotations_in_an_older_record() -> None:
    carried = {"question": "the annotation's", "schema": "of a table", "waited": {"seat_s": 1}}
    old = read_record({"index": 0, **carried})
    assert (old.question, old.schema, old.waited, old.extra) == ("", None, None, carried)


# --- a cache that the version before began, and one of the reference


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Iterator[tuple[Bench, Run]]:
    """A run that goes on from the old cache, in which "two calls" and "bad call" are missing, and asks "no video"
    again."""
    with ScriptedServer(Script(REPLIES)) as server:
        bench = Bench(tmp_path_factory.mktemp("old"), server.base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4", frames=40)
        bench.write(questions())
        bench.output_dir.mkdir()
        for name in ("cache_own.jsonl", "cache_own.meta.json"):
            (bench.output_dir / name).write_bytes((OLD / name).read_bytes())
        run = bench.run("--retry-error", "--yes", "--force")  # the older protocol is another setting
        assert run.code == 0, run.said
        assert set(server.journal.keys()) == {"two calls", "bad call"}
        yield bench, run


def questions() -> list[dict[str, Any]]:
    more = {"question_type": "['reasoning']", "time_reference": "00:01-00:02"}
    videos = {"no video": "absent.mp4"}
    return [row(name, index=number, video=videos.get(name, "clip.mp4"), **more) for name, number in INDEX.items()]


@pytest.mark.process
def test_an_older_cache_goes_on_and_its_records_stay_as_they_are(ran: tuple[Bench, Run]) -> None:
    bench, run = ran
    old = {json.loads(line)["index"]: line for line in (OLD / "cache_own.jsonl").read_bytes().splitlines()}
    new = run.result.read_bytes().splitlines()
    assert [json.loads(line)["index"] for line in new] == list(range(5))
    for name in ("one look", "silent"):
        assert new[INDEX[name]] == old[INDEX[name]]
    meta = json.loads(bench.result.with_suffix(".meta.json").read_text())
    assert ([one["protocol"] for one in meta["mixed"]], meta["adopted"], len(meta["started"])) == ([1], False, 2)


@pytest.mark.process
@pytest.mark.parametrize("name", ["two calls", "bad call", "no video"])
def test_new_keys_come_after_those_of_before(ran: tuple[Bench, Run], name: str) -> None:
    written = ran[1].records()[INDEX[name]]
    assert list(written) == [key for key in SINCE if key in written]
    assert {*REFERENCE, "trajectory", "seconds", "question", "schema"} <= set(written)
    assert (written["schema"], written["question"]) == (SCHEMA, f"[[{name}]] What is shown?\nA. one\nB. two")
    assert all(tuple(one) == CALL for round_ in written["trajectory"] for one in round_["calls"])


@pytest.mark.process
def test_the_labels_are_those_that_the_model_saw(ran: tuple[Bench, Run]) -> None:
    written = ran[1].records()[INDEX["two calls"]]
    first, second = written["trajectory"][0]["calls"]
    assert (first["labels_s"], second["labels_s"]) == ([0, 2], [2, 21, 40])
    seen = [60 * int(m) + int(s) for m, s in re.findall(r"Frame \d+ at \[(\d+):(\d+)\]", written["messages"])]
    assert seen == first["labels_s"] + second["labels_s"]
    (failed,) = ran[1].records()[INDEX["bad call"]]["trajectory"][0]["calls"]
    assert failed["labels_s"] == []


@pytest.mark.process
def test_records_of_the_reference_score_and_have_their_question_and_their_length(ran: tuple[Bench, Run]) -> None:
    theirs, ours = read_records(OLD / "result_reference.jsonl"), ran[1].records()
    for their, our in zip(theirs, ours, strict=True):
        assert read_record(their).outcome.correct is read_record(our).outcome.correct
        if their["messages"]:
            read = read_record(their)
            assert (read.question, read.video_duration_s) == (read_record(our).question, 3.0)


@pytest.mark.process
@pytest.mark.parametrize("script", ["accuracy.py", "report.py"])
def test_old_files_score_and_open_beside_new_ones(ran: tuple[Bench, Run], tmp_path: Path, script: str) -> None:
    more = ["--against"] if script == "report.py" else []
    for old in (OLD / "result_reference.jsonl", ran[0].result):
        done = called(script, ran[0].result, *more, old, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "5" in done.stdout


@pytest.mark.process
def test_a_cache_of_the_reference_goes_on(tmp_path: Path, tokenizer_dir: Path) -> None:
    with ScriptedServer(Script(REPLIES)) as server:
        bench = Bench(tmp_path, server.base_url, tokenizer_dir)
        make_video(bench.videos / "clip.mp4", frames=40)
        bench.write(questions())
        bench.output_dir.mkdir()
        theirs = (OLD / "result_reference.jsonl").read_bytes().splitlines(keepends=True)
        bench.cache.write_bytes(b"".join(theirs[:-1]))
        run = bench.run()
        assert run.code == 3, "their exception is to run again: " + run.said
        assert set(server.journal.keys()) == {"bad call"}
        assert run.result.read_bytes().startswith(b"".join(theirs[:-1]))
