"""The six datasets from the annotation file to the score, each with two runs of eval-eva.py and one of accuracy.py.

A folder of our own stands in the place of the checkout: its data/ holds the annotations and the videos where a reader
would put them, so that --dataset alone has to find everything. The annotation files are the real ones where they are at
hand, else own_rows.py's.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import SHARED, block, call, called, make_video, read_records
from own_rows import own_rows
from scripted_server import Journal, Refusal, Script, ScriptedServer, Seen

from eva.run.settings import known_datasets

# Annotation file, rows, and the name that cache and result bear.
DATASETS = {
    "videomme": ("videomme_test_wosubtitles_raw_list_full.jsonl", 2700, "videomme"),
    "longvideobench": ("LongVideoBench_nosub_raw_full.jsonl", 1337, "longvideobench"),
    "mlvu": ("MLVU_MCQ_raw_full.jsonl", 2174, "mlvu_mcq"),
    "lsdbench": ("LSDBench_raw_full.jsonl", 1304, "lsdbench"),
    "videoholmes": ("videoholmes_raw_full.jsonl", 1837, "videoholmes"),
    "lvbench": ("LVBench_raw_full_root.jsonl", 1549, "lvbench"),
}
ANNOTATIONS = SHARED / "annotations"
FIRST, ALL = 8, 20
LOOKING = 0  # the sample that asks for frames; the others answer at once
SYSTEM = "Use Frame Select Tool to Anlysis the video and generate an answer to the question."
PREFIX = "Video Length: 2 seconds. Original video resolution: 64p. "
REMINDER = "\nIf more information is needed, call the frame selection tool again.\n\nQuestion: "
KNOWN_KEYS = {"videos", "prompt", "reward_model", "index"}


def annotation_rows(dataset: str) -> list[dict[str, Any]]:
    path = ANNOTATIONS / DATASETS[dataset][0]
    return read_records(path) if path.exists() else own_rows(dataset)


def question(row: Mapping[str, Any]) -> str:
    (turn,) = row["prompt"]
    return turn["content"]


def video_below_root(row: Mapping[str, Any]) -> Path:
    """Flat, but for MLVU, whose absolute paths count from behind their MVLU/MLVU/."""
    return Path(row["videos"][0].split("MVLU/MLVU/")[-1])


def is_right(number: int) -> bool:
    return number % 3 != 0


def replies(number: int, row: Mapping[str, Any]) -> list[str]:
    answer = f"<answer>{row['reward_model']['ground_truth'] if is_right(number) else 'Z'}</answer>"
    return [block(call(0, 2, 2)), answer] if number == LOOKING else [answer]


def question_as_it_came(messages: Sequence[Mapping[str, Any]]) -> str:
    """A question that is changed on its way is one that the script does not know."""
    if len(messages) < 2 or not str(messages[1]["content"]).startswith(PREFIX):
        raise Refusal(400, f"not the opening of a sample: {messages!r:.300}")
    return messages[1]["content"].removeprefix(PREFIX)


@dataclass(frozen=True)
class Case:
    """A dataset's first 20 rows and what became of them; `first_*` is what the first run left."""

    rows: Sequence[Mapping[str, Any]]
    folder: Path
    stem: str
    first: subprocess.CompletedProcess[str]
    first_cache: bytes
    first_result: Sequence[Mapping[str, Any]]
    first_asked: Counter[str]
    second: subprocess.CompletedProcess[str]
    scored: subprocess.CompletedProcess[str]
    journal: Journal

    def records(self) -> list[dict[str, Any]]:
        return read_records(self.folder / f"result_{self.stem}.jsonl")

    def seen(self, number: int) -> list[Seen]:
        return self.journal.of(question(self.rows[number]))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("six")
    clips = {suffix: make_video(folder / f"clip{suffix}", frames=30) for suffix in (".mp4", ".mkv")}
    return {name: run_case(name, folder, clips, tokenizer_dir) for name in DATASETS}


def datasets_in(home: Path) -> dict[str, dict[str, str]]:
    """The known datasets in another folder than the checkout."""
    return {
        name: {**paths, "jsonl": str(home / paths["jsonl"]), "video_root": str(home / paths["video_root"])}
        for name, paths in known_datasets().items()
    }


def run_case(dataset: str, home: Path, clips: Mapping[str, Path], tokenizer: Path) -> Case:
    every_row = annotation_rows(dataset)
    rows = every_row[:ALL]
    put_data(dataset, every_row, home, clips)
    folder, stem = home / dataset, DATASETS[dataset][2]
    folder.mkdir()
    script = Script({question(row): replies(n, row) for n, row in enumerate(rows)}, key_of=question_as_it_came)
    with ScriptedServer(script) as server:
        command = ["eval-eva.py", "--dataset", dataset, "--base-url", server.base_url, "--tokenizer", str(tokenizer)]
        run = partial(called, *command, "--frame-root", folder / "frames", cwd=folder, datasets=datasets_in(home))
        first = run("--sample", FIRST)
        first_cache = read_bytes(folder / f"cache_{stem}.jsonl")
        first_result = read_bytes(folder / f"result_{stem}.jsonl")
        first_asked = server.journal.keys()
        second = run("--sample", ALL)
    scored = called("accuracy.py", f"result_{stem}.jsonl", cwd=folder)
    return Case(
        rows=rows,
        folder=folder,
        stem=stem,
        first=first,
        first_cache=first_cache,
        first_result=[json.loads(line) for line in first_result.splitlines()],
        first_asked=first_asked,
        second=second,
        scored=scored,
        journal=server.journal,
    )


def put_data(dataset: str, rows: Sequence[Mapping[str, Any]], home: Path, clips: Mapping[str, Path]) -> None:
    """The annotations and the first rows' videos; the first video comes in another container than its name says."""
    root = home / "data" / "videos" / dataset
    root.mkdir(parents=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (home / "data" / DATASETS[dataset][0]).write_text(text, encoding="utf-8")
    for row in rows[:ALL]:
        path = root / video_below_root(row)
        suffix = ".mkv" if row["videos"] == rows[0]["videos"] else path.suffix
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[suffix], path.with_suffix(suffix))


def read_bytes(path: Path) -> bytes:
    """Empty where there is none: the tests say better than a fixture what is missing."""
    return path.read_bytes() if path.exists() else b""


@pytest.fixture(params=DATASETS)
def dataset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(cases: Mapping[str, Case], dataset: str) -> Case:
    return cases[dataset]


def test_both_runs_and_the_scoring_end_with_exit_code_0(case: Case) -> None:
    for done in (case.first, case.second, case.scored):
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert case.scored.stderr == ""


def test_a_run_says_first_that_its_annotations_are_not_the_published_ones_and_which_truths_no_letter_equals(
    case: Case, dataset: str
) -> None:
    rows = len(annotation_rows(dataset))
    other = rows != DATASETS[dataset][1]
    said = f"annotations: Not the published questions: .* and {rows} questions instead of {DATASETS[dataset][1]}"
    assert bool(re.search(said, case.second.stderr.partition(" to go; model ")[0])) is other
    assert ("such as" in case.second.stderr) is ("@" in [row["reward_model"]["ground_truth"] for row in case.rows])


def test_every_prompt_arrives_byte_for_byte(case: Case) -> None:
    assert case.journal.unexpected == []
    for number, row in enumerate(case.rows):
        opening = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": PREFIX + question(row)},
        ]
        assert list(case.seen(number)[0].messages) == opening


@pytest.mark.parametrize(
    ("dataset", "numbers"), [("lsdbench", range(ALL)), ("lvbench", range(ALL)), ("videoholmes", [3])]
)
def test_the_literal_backslash_n_of_a_prompt_stays(
    cases: Mapping[str, Case], dataset: str, numbers: Sequence[int]
) -> None:
    for number in numbers:
        assert r"\n" in cases[dataset].seen(number)[0].messages[1]["content"]


def test_the_tool_response_shows_the_frames_and_repeats_the_question_byte_for_byte(case: Case) -> None:
    *_, response = case.seen(LOOKING)[-1].messages
    images = [part for part in response["content"] if part["type"] == "image"]
    assert [(image["w"], image["h"]) for image in images] == [(84, 56)] * 2
    owed = f"{REMINDER}{question(case.rows[LOOKING])}</tool_response>"
    assert response["content"][-1] == {"type": "text", "text": owed}


def test_frames_lie_in_a_folder_of_the_videos_name(case: Case) -> None:
    (one,) = case.records()[LOOKING]["trajectory"][0]["calls"]
    store, name = Path(one["frames"][0]).relative_to(case.folder / "frames").parts[:2]
    assert (store, name.rpartition("-")[0]) == ("store", video_below_root(case.rows[LOOKING]).stem[:40])


# --- resume and merge


def test_the_second_run_asks_only_what_the_first_did_not(case: Case) -> None:
    asked = {question(row): 1 + (number == LOOKING) for number, row in enumerate(case.rows)}
    assert case.first_asked == {question(row): asked[question(row)] for row in case.rows[:FIRST]}
    assert case.journal.keys() == asked


def test_the_second_run_leaves_the_records_of_the_first_as_they_are(case: Case) -> None:
    assert [record["index"] for record in case.first_result] == list(range(FIRST))
    assert read_bytes(case.folder / f"cache_{case.stem}.jsonl").startswith(case.first_cache)
    assert case.records()[:FIRST] == case.first_result


def test_the_result_is_the_cache_sorted_by_index(case: Case) -> None:
    assert [record["index"] for record in case.records()] == list(range(ALL))
    cached = read_records(case.folder / f"cache_{case.stem}.jsonl")
    assert sorted(cached, key=lambda record: record["index"]) == case.records()


def test_cache_and_result_have_the_datasets_names_and_nothing_else_is_left(case: Case) -> None:
    owed = {f"{kind}_{case.stem}.{ending}" for kind in ("cache", "result") for ending in ("jsonl", "meta.json")}
    assert {path.name for path in case.folder.iterdir() if not path.name.startswith(".")} == owed | {"frames"}


# --- records


def test_annotated_videos_truths_and_extra_keys_are_carried_into_the_records(case: Case) -> None:
    for row, record in zip(case.rows, case.records(), strict=True):
        assert record["videos"] == row["videos"]
        assert record["gt"] == row["reward_model"]["ground_truth"]
        extra = row.keys() - KNOWN_KEYS
        assert {key: record[key] for key in extra} == {key: row[key] for key in extra}


@pytest.mark.parametrize(
    ("dataset", "keys"),
    [
        ("lvbench", {"question_type", "time_reference", "video_type", "uid", "id"}),
        ("videoholmes", {"Question_ID", "Question_Type", "Explanation"}),
    ],
)
def test_there_are_extra_keys_to_carry(cases: Mapping[str, Case], dataset: str, keys: set[str]) -> None:
    assert all(keys <= record.keys() for record in cases[dataset].records())


def test_a_record_names_the_file_where_another_container_stood_in_and_only_there(case: Case) -> None:
    stand_in = case.rows[0]["videos"]
    owed = str(video_below_root(case.rows[0]).with_suffix(".mkv"))
    for record in case.records():
        assert record.get("video_file") == (owed if record["videos"] == stand_in else None)


def test_mlvus_absolute_paths_are_looked_up_below_the_video_root(cases: Mapping[str, Case]) -> None:
    mlvu = cases["mlvu"]
    assert all(row["videos"][0].startswith("/mnt/") for row in mlvu.rows)
    assert {record["stop_reason"] for record in mlvu.records()} == {"answer_found"}
    assert mlvu.records()[0]["video_file"].startswith("video/")


# --- the score


def test_the_run_and_accuracy_py_give_the_same_score(case: Case) -> None:
    right = sum(map(is_right, range(ALL)))
    scored, summary = case.scored.stdout.splitlines(), case.second.stdout.splitlines()
    assert scored[:2] == [f"Total entries: {ALL}", f"Accuracy: {right}/{ALL} = {right / ALL:.4%}"]
    (interval,) = [line.partition(": ")[2] for line in scored if line.startswith("95 % interval")]
    assert summary[0] == f"Accuracy:      {right}/{ALL} = {right / ALL:.2%}"
    assert summary[1] == f"95 % interval: {interval}, clustered by video"
    published = [line for line in scored if line.startswith("Published (repository): ")]
    (figure,) = re.findall(r"\d+\.\d\d%", published[0])
    assert summary[2].startswith(f"Published:     {figure} (repository, of all ")
    end = summary.index("")
    assert [line.partition(":")[0] for line in summary[end - 2 : end]] == ["Chance", "Failures"]


def test_the_score_names_the_dataset_and_says_that_it_covers_only_a_part_of_it(case: Case, dataset: str) -> None:
    lines = case.scored.stdout.splitlines()
    assert f"Dataset: {dataset}" in lines
    assert any(f"covers only {ALL} of {DATASETS[dataset][1]} questions" in line for line in lines)
    assert any(line.startswith("Published (repository): ") for line in lines)


# --- the rows of our own


@pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the annotation files are not at hand")
def test_our_own_rows_have_the_shape_of_the_real_ones(dataset: str) -> None:
    real = {shape(row) for row in annotation_rows(dataset)}
    assert {shape(row) for row in own_rows(dataset)} <= real


def shape(row: Mapping[str, Any]) -> tuple[object, ...]:
    turns = tuple(turn["role"] for turn in row["prompt"])
    kinds = tuple((key, type(value).__name__) for key, value in row.items())
    video = Path(row["videos"][0])
    ends = ("\\n" in question(row), "\n" in question(row))
    return kinds, turns, tuple(row["reward_model"]), len(video.parts) > 1, video.is_absolute(), ends
