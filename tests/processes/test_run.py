"""eval-eva.py: what each flag does, what it refuses, what it survives."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import HELPERS, ROOT, Bench, Run, block, call, make_video, only_sentence, row
from restated import Decoded, decode_all, describe, owed_images, resized, stamp, stamps
from scripted_server import Journal, Script, ScriptedServer, image_bytes

ANSWER = "<answer>B</answer>"
FAILED = "call_frame_select_failed"
LOOK = block(call(1, 4, 2))

# Everything a file name may hold that a shell, an address, an option parser or a line-wise reader could trip over.
NAMES = (
    "with space.mp4",
    "quotes'\".mp4",
    "percent%20%.mp4",
    "hash#1?x=2&y.mp4",
    "new\nline.mp4",
    "-i.mp4",
    "--help.mp4",
    "$(touch pwned);`touch pwned`|&.mp4",
    "x, total frames saved: 9, from y to z.mp4",
    "ünï 視頻.mp4",
    "back\\slash.mp4",
    "...mp4",
    "long" * 50 + ".mp4",
    "\udcff.mp4",
)


@dataclass(frozen=True)
class Flagged:
    """The runs of the flag tests; each has a server of its own, so that its journal tells what that run asked."""

    runs: Mapping[str, Run]
    journals: Mapping[str, Journal]
    video: Decoded
    folder: Path

    def tool_contents(self, run: str, key: str) -> list[list[Any]]:
        last = self.journals[run].of(key)[-1].messages
        return [message["content"] for message in last if message["role"] == "tool"]

    def images(self, run: str, key: str) -> list[Any]:
        return [part for content in self.tool_contents(run, key) for part in content if part["type"] == "image"]

    def labels(self, run: str, key: str) -> list[str]:
        texts = [part["text"] for content in self.tool_contents(run, key) for part in content if "text" in part]
        return re.findall(r"Frame \d+ at \[(.+?)\]: ", "".join(texts))

    def record(self, run: str, key: str) -> Mapping[str, Any]:
        (found,) = [r for r in self.runs[run].records() if f"[[{key}]]" in str(r["messages"])]
        return found


TRANSPORT_SCRIPT = {f"name {number}": [LOOK, ANSWER] for number in range(len(NAMES))}
WINDOWS_SCRIPT = {
    "plain": [LOOK, ANSWER],
    "beyond the end": [block(call(4, 4507, 3)), ANSWER],
    "reversed": [block(call(4, 1, 3)), ANSWER],
}
# Words of the model that the reference's tool takes, with the window whose frames it then shows; the labels stay.
WORDS: Mapping[str, tuple[Mapping[str, Any], tuple[float, float, int, float]]] = {
    "a factor, a backend and a save root": ({"fact": "2_8", "backend": "decord", "save-r": "/nowhere"}, (1, 4, 2, 1.0)),
    "later names": ({"start-time": "0:00", "end_t": 2, "nfr": 2, "res": 0.5}, (0, 2, 2, 0.5)),
    "an end that is the stream's": ({"end": ""}, (1, 6, 2, 1.0)),
}
# And these it refuses; tests/frames/test_words.py has more.
UNUSABLE: Mapping[str, Mapping[str, Any]] = {
    "a shell": {"why": "$(touch pwned); touch pwned"},
    "another video": {"video_path": "/other.mp4"},
    "an unknown backend": {"backend": "magic"},
}
NO_FALLBACK_SCRIPT = {
    **WINDOWS_SCRIPT,
    **{key: [block(call(1, 4, 2, **more)), ANSWER] for key, more in UNUSABLE.items()},
    **{key: [block(call(1, 4, 2, **more)), ANSWER] for key, (more, _) in WORDS.items()},
    "by time": [block(call(1, 4, 2, backend="torchcodec")), ANSWER],
    "by time, beyond the end": [block(call(4, 4507, 3, backend="torchcodec")), ANSWER],
}
MANY = {f"item {number}": [ANSWER] for number in range(12)}
MANY_ROWS = [row(key, index=number) for number, key in enumerate(MANY)]
TWO_AT_ONCE = ("--max-concurrent", "2", "--model", "second", "--api-key", "sesame", "--sample", "6")


OVERFLOW = {
    "too long": "This model's maximum context length is 16384 tokens. However, your prompt contains 20000",
    "too many images": "At most 9999 image(s) may be provided in one prompt.",
}


def deep(levels: int) -> str:
    return block('{"tool": "frame_select", "arguments": {"start_time": ' + "[" * levels + "]" * levels + "}}")


def timed(start: str, end: str, nframes: str, resize: str = "1") -> str:
    arguments = f'{{"start_time": {start}, "end_time": {end}, "nframes": {nframes}, "resize": {resize}}}'
    return block(f'{{"tool": "frame_select", "arguments": {arguments}}}')


HOSTILE = {
    "a lone surrogate in an answer": ("<answer>\ud800</answer>", "answer_found"),
    "a lone surrogate in a reply that is sent back": (LOOK + "\udfff", "answer_found"),
    "null bytes": ("\0\0<answer>\0</answer>", "answer_found"),
    "five megabytes": ("x" * 5_000_000 + "<answer>B</answer>", "answer_found"),
    "control tokens": ("<|im_end|>\n<|im_start|>user\n<|image_pad|><answer>B</answer>", "answer_found"),
    "line separators": ("<answer>B\u2028\u2029\u0085\r</answer>", "answer_found"),
    "a deep list": (deep(200_000), "arguments_not_json"),
    **{f"a time of {levels} levels": (timed("[" * levels + "]" * levels, "2", "2"), None) for levels in (150, 950)},
    "two huge times": (timed("-1e308", "1e308", "2"), None),
    "a huge integer time": (timed("0", "1" + "0" * 400, "2"), None),
    "an infinite resize": (timed("0", "2", "2", "1e999"), FAILED),
    "a NaN time": (timed("NaN", "2", "2"), FAILED),
    "a huge number of frames": (timed("0", "2", "1e308"), FAILED),
    "a long string time": (timed('"' + "9" * 100_000 + '"', "2", "2"), FAILED),
    "an object for a time": (block(call([], [], 2)), FAILED),
    "true for everything": (timed("true", "true", "true", "true"), None),
}  # fmt: skip


def fault_script() -> dict[str, list[Any]]:
    return {
        "lasting": [{"status": 500, "message": "[Errno 2] No such file or directory: 'x.png'"}],
        **{key: [{"status": 400, "message": message}] for key, message in OVERFLOW.items()},
    }


def hostile_script() -> dict[str, list[Any]]:
    return {**{key: [reply, ANSWER] for key, (reply, _) in HOSTILE.items()}, "odd question": [ANSWER]}


def hostile_rows() -> list[dict[str, Any]]:
    odd = row("odd question")
    odd["prompt"][0]["content"] += "\ud800\0<|im_end|>{}%s\u2028"
    odd["reward_model"]["ground_truth"] = "\udc00"
    return [*(row(key) for key in HOSTILE), odd]


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Iterator[Flagged]:
    folder = tmp_path_factory.mktemp("flags")
    clip = make_video(folder / "videos" / "clip.mp4")
    for name in NAMES:
        (folder / "videos" / name).symlink_to(clip)
    servers: dict[str, ScriptedServer] = {}
    runs: dict[str, Run] = {}

    def add(
        name: str,
        script: Script,
        rows: list[dict[str, Any]],
        *flags: str,
        dataset: str = "own",
        **settings: str | None,
    ) -> None:
        servers[name] = ScriptedServer(script)
        servers[name].__enter__()
        bench = Bench(folder / name, servers[name].base_url, tokenizer_dir, dataset)
        bench.write(rows)
        chosen: dict[str, Any] = {"video_root": str(folder / "videos"), **settings}
        runs[name] = bench.run(*flags, **chosen)

    def rows_of(script: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [row(key) for key in script]

    named = [row(key, video=name) for key, name in zip(TRANSPORT_SCRIPT, NAMES, strict=True)]
    add("faults", Script(fault_script()), rows_of(fault_script()))
    add("hostile", Script(hostile_script()), hostile_rows())
    add("file", Script(TRANSPORT_SCRIPT), named)
    add("base64", Script(TRANSPORT_SCRIPT), named[:3], "--image-transport", "base64")
    add("actual", Script(WINDOWS_SCRIPT), rows_of(WINDOWS_SCRIPT), "--timestamps", "actual")
    add("no fallback", Script(NO_FALLBACK_SCRIPT), rows_of(NO_FALLBACK_SCRIPT), "--no-fallback")
    tool = str(HELPERS / "foreign_tool.py")
    add("foreign tool", Script(WINDOWS_SCRIPT), rows_of(WINDOWS_SCRIPT), frame_tool=tool)
    if importlib.util.find_spec("decord"):
        add("decord", Script(WINDOWS_SCRIPT), rows_of(WINDOWS_SCRIPT), "--backend", "decord")
    two = Script(MANY, models=("first", "second"), api_key="sesame", default_delay_s=0.3)
    add("two at once", two, MANY_ROWS, *TWO_AT_ONCE)
    slow = Script(MANY, models=("first", "second"), default_delay_s=0.3)
    add("defaults", slow, MANY_ROWS)
    add("ids", Script(MANY), MANY_ROWS, "--ids", "1,3,5-7", dataset="named.set-2")
    yield Flagged(runs, {name: server.journal for name, server in servers.items()}, decode_all(clip), folder)
    for server in servers.values():
        server.__exit__()


def test_every_run_of_the_flag_tests_finished(flagged: Flagged) -> None:
    owed = {"faults": 3}  # one sample is to run again
    assert {name: run.said for name, run in flagged.runs.items() if run.code != owed.get(name, 0)} == {}
    assert {name: journal.unexpected for name, journal in flagged.journals.items() if journal.unexpected} == {}


# --- frames and transport


@pytest.mark.parametrize("number", range(len(NAMES)), ids=[repr(name[:30]) for name in NAMES])
def test_any_file_name_gives_its_frames_through_absolute_quoted_file_addresses(flagged: Flagged, number: int) -> None:
    key = f"name {number}"
    assert flagged.images("file", key) == owed_images(flagged.video, 1, 4, 2, 1.0)
    urls = flagged.journals["file"].of(key)[-1].urls
    assert len(urls) == 2
    store = (flagged.folder / "file" / "frames" / "store").as_uri()
    assert all(url.startswith(store) and re.fullmatch(r"[!-~]+", url) for url in urls), "ASCII without blanks"
    assert list(flagged.folder.rglob("pwned")) == [] == list(ROOT.glob("pwned"))


def test_the_summary_says_how_many_frames_were_there_already(flagged: Flagged) -> None:
    said = re.search(r"Frames of this run: (\d+), (\d+) from the store", flagged.runs["actual"].stdout)
    assert said is not None
    calls = [c for r in flagged.runs["actual"].records() for step in r["trajectory"] for c in step["calls"]]
    shown = [set(one["frames"]) for one in calls]
    assert int(said[1]) == sum(map(len, shown))
    assert int(said[2]) == sum(map(len, shown)) - len(set().union(*shown)) > 0


@pytest.mark.parametrize("key", list(TRANSPORT_SCRIPT)[:3])
def test_base64_sends_the_same_pixels_in_data_addresses_of_their_media_type(flagged: Flagged, key: str) -> None:
    images, urls = flagged.images("base64", key), flagged.journals["base64"].of(key)[-1].urls
    assert len(images) == len(urls) == 2
    assert images == flagged.images("file", key)
    magic = {"image/png": b"\x89PNG", "image/bmp": b"BM"}
    assert all(image_bytes(url).startswith(magic[url.removeprefix("data:").split(";base64,")[0]]) for url in urls)


def test_decord_serves_when_it_is_asked_for_and_the_record_says_so(flagged: Flagged) -> None:
    if "decord" not in flagged.runs:
        pytest.skip("decord is not installed")
    for key in WINDOWS_SCRIPT:
        (one,) = flagged.record("decord", key)["trajectory"][0]["calls"]
        assert one["executed"]["decoder"] == "decord"
        assert flagged.images("decord", key) == flagged.images("actual", key)


def test_a_frame_tool_of_ones_own_needs_only_the_line_it_prints(flagged: Flagged) -> None:
    assert [(image["w"], image["h"]) for image in flagged.images("foreign tool", "plain")] == [(56, 56)] * 2
    record = flagged.record("foreign tool", "plain")
    assert record["stop_reason"] == "answer_found"
    assert all(path.endswith(".ppm") for path in record["trajectory"][0]["calls"][0]["frames"])


# --- time stamps and windows


@pytest.mark.parametrize("key", WINDOWS_SCRIPT)
def test_actual_time_stamps_are_those_of_the_frames_shown(flagged: Flagged, key: str) -> None:
    (one,) = flagged.record("actual", key)["trajectory"][0]["calls"]
    times = [flagged.video.times_s[index] for index in one["executed"]["indices"]]
    assert flagged.labels("actual", key) == [stamp(int(at)) for at in times]


def test_without_fallback_a_window_is_not_clamped(flagged: Flagged) -> None:
    shown = [describe(resized(picture, 1.0)) for picture in flagged.video.pictures([40, 59, 59])]
    assert flagged.images("no fallback", "beyond the end") == shown
    assert flagged.record("no fallback", "reversed")["stop_reason"] == FAILED
    assert flagged.record("actual", "reversed")["stop_reason"] == "answer_found"


def test_without_fallback_every_argument_is_passed_on_so_an_unknown_one_fails_the_call(flagged: Flagged) -> None:
    assert flagged.record("no fallback", "plain")["stop_reason"] == "answer_found"
    assert [flagged.record("no fallback", key)["stop_reason"] for key in UNUSABLE] == [FAILED] * len(UNUSABLE)


@pytest.mark.parametrize("key", WORDS)
def test_without_fallback_words_of_the_model_are_read_as_the_reference_reads_them(flagged: Flagged, key: str) -> None:
    assert flagged.record("no fallback", key)["stop_reason"] == "answer_found"
    assert flagged.images("no fallback", key) == owed_images(flagged.video, *WORDS[key][1])
    assert flagged.labels("no fallback", key) == stamps(1, 4, 2)
    assert not Path("/nowhere").exists()


def test_without_fallback_a_model_that_chooses_torchcodec_gets_frames_by_time(flagged: Flagged) -> None:
    shown = [describe(resized(picture, 1.0)) for picture in flagged.video.pictures([10, 39])]
    assert flagged.images("no fallback", "by time") == shown != flagged.images("no fallback", "plain")
    assert flagged.record("no fallback", "by time, beyond the end")["stop_reason"] == FAILED


# --- model, server, choice of items


def test_model_key_and_number_of_samples_are_as_the_flags_say_and_the_first_model_and_30_without(
    flagged: Flagged,
) -> None:
    chosen, usual = flagged.journals["two at once"], flagged.journals["defaults"]
    assert {seen.body["model"] for seen in usual.seen} == {"first"}
    assert {(seen.body["model"], seen.authorization) for seen in chosen.seen} == {("second", "Bearer sesame")}
    assert chosen.most_at_once == 2
    assert 6 < usual.most_at_once <= 12
    assert set(chosen.keys()) == {f"item {number}" for number in range(6)}
    assert list(flagged.runs["two at once"].by_index()) == [0, 1, 2, 3, 4, 5]
    assert set(usual.keys().values()) == {1}
    run = flagged.runs["defaults"]
    assert sorted(run.cache.read_bytes().split(b"\n")) == sorted(run.result.read_bytes().split(b"\n"))


def test_ids_are_the_denominator_and_a_dataset_of_any_name_has_files_of_that_name(flagged: Flagged) -> None:
    run = flagged.runs["ids"]
    assert list(run.by_index()) == [1, 3, 5, 6, 7]
    assert "5/5 = 100.00%" in run.stdout
    names = {path.name for path in run.output_dir.iterdir()}
    assert {"cache_named.set-2.jsonl", "result_named.set-2.jsonl"} <= names


# --- bad input: a sentence and exit code 2, before any model call


GOOD_LINE = json.dumps(row("never asked"))
# An earlier record, an exception, so that there is something that --retry-error would drop.
KEPT = json.dumps(
    {"index": 3, "videos": ["clip.mp4"], "messages": [], "gt": "B", "answer": "", "stop_reason": "exception",
     "num_rounds": 0, "total_tokens": 0, "estimated_visual_tokens": 0, "error": "RuntimeError: old"}
) + "\n"  # fmt: skip
LOCKED, EMPTY = Script({}, api_key="sesame"), Script({}, models=())
# The words that the sentence must hold, and how the run is spoilt: its settings and flags, or the annotation lines.
REFUSALS: Mapping[str, tuple[Sequence[str], Mapping[str, Any], Sequence[str]]] = {
    "a missing annotation file": (["absent.jsonl"], {"jsonl": "absent.jsonl"}, ()),
    "a line that is not JSON": (["questions.jsonl", "2"], {}, (GOOD_LINE, "{")),
    "a line that is not an item": (["questions.jsonl", "3"], {}, (GOOD_LINE, GOOD_LINE, '{"videos": []}')),
    "a line nested 980 deep": (
        ["questions.jsonl", "2"], {}, (GOOD_LINE, f'{GOOD_LINE[:-1]}, "more": {"[" * 980}{"]" * 980}}}')
    ),
    "duplicate indices": (["questions.jsonl", "7"], {}, (json.dumps(row("a", index=7)),) * 2),
    "no server at the address": (["127.0.0.1:9"], {"base_url": "http://127.0.0.1:9/v1"}, ()),
    "a server that refuses the key": (["401"], {"base_url": LOCKED}, ()),
    "no model on the server": (["model"], {"base_url": EMPTY}, ()),
    "a tokenizer that is not there": (["absent_tokenizer"], {"tokenizer": "absent_tokenizer"}, ()),
    "a folder that is no tokenizer": (["a_folder"], {"tokenizer": "a_folder"}, ()),
    "a frame root that cannot be written": (["a_file/frames"], {"frame_root": "a_file/frames"}, ()),
    "an output folder that cannot be written": (["a_file/out"], {"output_dir": "a_file/out"}, ()),
    "a missing video root": (["absent_videos"], {"video_root": "absent_videos"}, ()),
    "a missing frame tool": (["absent_tool.py"], {"frame_tool": "absent_tool.py"}, ()),
    "an unknown dataset": (["unheard"], {"dataset": "unheard", "jsonl": None, "video_root": None}, ()),
    "a dataset name that is a path": (["../escape"], {"dataset": "../escape"}, ()),
    "no turns": (["--max-turns"], {"max_turns": "0"}, ()),
    "ids that are not there": (["--ids"], {"ids": "5"}, ()),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_one_sentence_that_names_it_and_exit_code_2_and_nothing_is_asked_or_changed(
    tmp_path: Path, tokenizer_dir: Path, name: str
) -> None:
    words, settings, lines = REFUSALS[name]
    script = settings.get("base_url", Script({}))
    with ScriptedServer(script if isinstance(script, Script) else Script({})) as server:
        bench = Bench(tmp_path / "place", server.base_url, tokenizer_dir)
        (bench.folder / "a_folder").mkdir()
        (bench.folder / "a_file").write_text("text", encoding="utf-8")
        bench.output_dir.mkdir()
        bench.cache.write_text(KEPT, encoding="utf-8")
        bench.write([])
        bench.jsonl.write_text("".join(f"{line}\n" for line in lines or [GOOD_LINE]), encoding="utf-8")
        run = bench.run(**{**settings, "base_url": server.base_url if isinstance(script, Script) else script})
    assert run.code == 2, run.said
    assert all(word in only_sentence(run.stderr) for word in words)
    assert server.journal.seen == [] and not any("chat" in path for path in server.journal.paths)
    assert bench.cache.read_text(encoding="utf-8") == KEPT
    assert not bench.result.exists() and not list(tmp_path.rglob("*escape*"))


# --- what the server does


def test_a_fault_that_lasts_becomes_an_exception_record_with_its_reason(flagged: Flagged) -> None:
    record = flagged.runs["faults"].by_index()[0]
    assert (record["stop_reason"], record["answer"], record["messages"]) == ("exception", "", [])
    assert [record[name] for name in ("num_rounds", "total_tokens", "estimated_visual_tokens")] == [0, 0, 0]
    assert "No such file or directory" in record["error"]


@pytest.mark.parametrize("number", range(len(OVERFLOW)))
def test_http_400_ends_the_sample_as_openai_bad_request_at_once(flagged: Flagged, number: int) -> None:
    key, record = list(OVERFLOW)[number], flagged.runs["faults"].by_index()[1 + number]
    assert (record["stop_reason"], record["answer"], record["num_rounds"]) == ("openai_bad_request", "", 0)
    assert "BadRequestError" in record["error"]
    assert OVERFLOW[key] in json.dumps(record), "the server's own words must not be lost"
    assert len(flagged.journals["faults"].of(key)) == 1


# --- hostile replies and questions


def test_hostile_replies_do_not_end_the_run_and_its_result_is_one_utf8_json_object_a_line(flagged: Flagged) -> None:
    run = flagged.runs["hostile"]
    assert run.code == 0, run.said[-3000:]
    assert "Traceback" not in run.stderr
    lines = run.result.read_bytes().decode("utf-8").split("\n")[:-1]
    found = [json.loads(one, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for one in lines]
    assert [record["index"] for record in found] == list(range(len(HOSTILE) + 1))
    assert found[-1]["stop_reason"] in {"answer_found", "exception", "openai_bad_request"}, "of an odd question"


@pytest.mark.parametrize("key", HOSTILE)
def test_every_hostile_reply_ends_in_a_record_of_the_models_own_stop_reasons(flagged: Flagged, key: str) -> None:
    record = flagged.runs["hostile"].by_index()[list(HOSTILE).index(key)]
    owed = HOSTILE[key][1]
    if owed is not None:
        assert record["stop_reason"] == owed, record.get("error")
    assert record["stop_reason"] in {"answer_found", "no_answer_no_tool_call", "arguments_not_json", FAILED}
