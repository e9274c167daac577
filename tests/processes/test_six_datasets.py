"""The six datasets from the annotation file to the score: a run of eval-eva.py and one of accuracy.py each.

A folder of our own stands in the place of the checkout: its data/ holds the annotations and the videos where a reader
would put them, so that --dataset alone has to find everything. The annotation files are the real ones where they are at
hand, else own_rows.py's.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import SHARED, block, call, called, make_video, read_records
from own_rows import own_rows
from scripted_server import Journal, Refusal, Script, ScriptedServer

from eva.dataset.catalog import load_catalog
from eva.run.settings import known_datasets

KNOWN = load_catalog().datasets
ANNOTATIONS = SHARED / "annotations"
ROWS = 20
LOOKING = 0  # the sample that asks for frames; the others answer at once
SYSTEM = "Use Frame Select Tool to Anlysis the video and generate an answer to the question."
PREFIX = "Video Length: 2 seconds. Original video resolution: 64p. "
# Of the datasets whose prompts have a literal backslash-n, such rows; and the keys that go into the records.
BACKSLASH_N = {"lsdbench": range(ROWS), "lvbench": range(ROWS), "videoholmes": [3]}
EXTRA = {
    "lvbench": {"question_type", "time_reference", "video_type", "uid", "id"},
    "videoholmes": {"Question_ID", "Question_Type", "Explanation"},
}


def annotation_rows(dataset: str) -> list[dict[str, Any]]:
    path = ANNOTATIONS / KNOWN[dataset].annotations.name
    return read_records(path) if path.exists() else own_rows(dataset)


def question(row: Mapping[str, Any]) -> str:
    (turn,) = row["prompt"]
    return turn["content"]


def video_below_root(row: Mapping[str, Any]) -> Path:
    """Flat, but for MLVU, whose absolute paths count from behind their MLVU/MLVU/."""
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
    """A dataset's first rows and what became of them."""

    dataset: str
    rows: Sequence[Mapping[str, Any]]
    folder: Path
    run: subprocess.CompletedProcess[str]
    scored: subprocess.CompletedProcess[str]
    journal: Journal

    def records(self) -> list[dict[str, Any]]:
        return read_records(self.folder / KNOWN[self.dataset].result.name)


@pytest.fixture(scope="module", params=KNOWN)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Case:
    dataset, home = str(request.param), tmp_path_factory.mktemp("six")
    rows = annotation_rows(dataset)
    put_data(dataset, rows, home)
    folder = home / "run"
    folder.mkdir()
    paths = {key: str(home / path) for key, path in known_datasets()[dataset].items() if key in ("jsonl", "video_root")}
    script = Script({question(row): replies(n, row) for n, row in enumerate(rows[:ROWS])}, key_of=question_as_it_came)
    with ScriptedServer(script) as server:
        words = ["--base-url", server.base_url, "--tokenizer", tokenizer_dir, "--frame-root", folder / "frames"]
        datasets = {dataset: {**known_datasets()[dataset], **paths}}
        done = called("eval-eva.py", "--dataset", dataset, "--sample", ROWS, *words, cwd=folder, datasets=datasets)
    scored = called("accuracy.py", KNOWN[dataset].result.name, cwd=folder)
    return Case(dataset, rows[:ROWS], folder, done, scored, server.journal)


def put_data(dataset: str, rows: Sequence[Mapping[str, Any]], home: Path) -> None:
    """The annotations and the first rows' videos; the first video comes in another container than its name says."""
    clips = {suffix: make_video(home / f"clip{suffix}", frames=30) for suffix in (".mp4", ".mkv")}
    root = home / "data" / "videos" / dataset
    root.mkdir(parents=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (home / "data" / KNOWN[dataset].annotations.name).write_text(text, encoding="utf-8")
    for row in rows[:ROWS]:
        path = root / video_below_root(row)
        suffix = ".mkv" if row["videos"] == rows[0]["videos"] else path.suffix
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[suffix], path.with_suffix(suffix))


def test_a_run_says_first_whether_its_questions_are_the_published_ones_and_which_truths_no_letter_equals(
    case: Case,
) -> None:
    assert (case.run.returncode, case.scored.returncode, case.scored.stderr) == (0, 0, ""), case.run.stderr
    rows, published = len(annotation_rows(case.dataset)), KNOWN[case.dataset].rows
    said = f"annotations: Not the published questions: .* and {rows} questions instead of {published}"
    assert bool(re.search(said, case.run.stderr.partition(" to go; model ")[0])) is (rows != published)
    assert ("such as" in case.run.stderr) is ("@" in [row["reward_model"]["ground_truth"] for row in case.rows])


def test_every_prompt_arrives_byte_for_byte(case: Case) -> None:
    assert case.journal.unexpected == []
    for row in case.rows:
        system, user = case.journal.of(question(row))[0].messages
        assert (system, user) == (
            {"role": "system", "content": SYSTEM}, {"role": "user", "content": PREFIX + question(row)},
        )  # fmt: skip
    for number in BACKSLASH_N.get(case.dataset, ()):
        assert r"\n" in question(case.rows[number])


def test_the_files_of_a_run_have_the_datasets_names_and_each_question_is_asked_once(case: Case) -> None:
    names = {f"{kind}{ending}" for kind in stems(case.dataset) for ending in (".jsonl", ".meta.json")}
    assert {path.name for path in case.folder.iterdir() if not path.name.startswith(".")} == names | {"frames"}
    asked = {question(row): 1 + (number == LOOKING) for number, row in enumerate(case.rows)}
    assert case.journal.keys() == asked


def stems(dataset: str) -> list[str]:
    stem = "mlvu_mcq" if dataset == "mlvu" else dataset
    return [f"cache_{stem}", f"result_{stem}"]


def test_annotated_videos_truths_and_extra_keys_are_carried_into_the_records(case: Case) -> None:
    for row, record in zip(case.rows, case.records(), strict=True):
        assert (record["videos"], record["gt"]) == (row["videos"], row["reward_model"]["ground_truth"])
        extra = row.keys() - {"videos", "prompt", "reward_model", "index"}
        assert {key: record[key] for key in extra} == {key: row[key] for key in extra}
        assert EXTRA.get(case.dataset, set()) <= record.keys()


def test_a_record_names_the_file_where_another_container_stood_in_and_only_there(case: Case) -> None:
    stand_in = case.rows[0]["videos"]
    file = str(video_below_root(case.rows[0]).with_suffix(".mkv"))
    for record in case.records():
        assert record.get("video_file") == (file if record["videos"] == stand_in else None)
    assert case.rows[0]["videos"][0].startswith("/mnt/") is (case.dataset == "mlvu")


def test_the_run_and_accuracy_py_give_the_same_score_of_a_part_of_the_dataset(case: Case) -> None:
    right = sum(map(is_right, range(ROWS)))
    scored = case.scored.stdout.splitlines()
    assert scored[:2] == [f"Total entries: {ROWS}", f"Accuracy: {right}/{ROWS} = {right / ROWS:.4%}"]
    assert case.run.stdout.splitlines()[0] == f"Accuracy:      {right}/{ROWS} = {right / ROWS:.2%}"
    assert f"Dataset: {case.dataset}" in scored
    assert re.search(f"covers only {ROWS} of (the )?{KNOWN[case.dataset].rows} ", case.scored.stdout)
