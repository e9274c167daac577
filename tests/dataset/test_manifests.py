"""The manifests and the published figures: complete, consistent, and equal to the files where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from file_server import FileServer
from harness import called

from eva.dataset.download import hash_content, load_manifest
from eva.dataset.items import load_items, video_path

ROOT = Path(__file__).resolve().parents[2]
ANNOTATIONS = ROOT.parent / "shared" / "annotations"
COMMIT = "758ad8d3dcb84a8086e5d70c9afb9a6f278e8f5a"
DATASETS = ["videomme", "longvideobench", "mlvu", "lsdbench", "videoholmes", "lvbench"]
# What the repository's table says: rows, videos, accuracy in percent, rounds, tokens.
TABLE = {
    "videomme": (2700, 900, 60.15, 2.42, 16911),
    "longvideobench": (1337, 753, 54.97, 2.57, 19042),
    "mlvu": (2174, 1242, 68.26, 2.42, 16570),
    "lsdbench": (1304, 400, 49.31, 2.48, 13914),
    "videoholmes": (1837, 270, 37.18, 2.75, 9085),
    "lvbench": (1549, 103, 43.32, 2.62, 20412),
}
needs_annotations = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the annotation files are not at hand")

PUBLISHED = json.loads((ROOT / "results-12k" / "published.json").read_text(encoding="utf-8"))
DATA = load_manifest(ROOT / "data" / "manifest.json")
RESULTS = load_manifest(ROOT / "results-12k" / "manifest.json")


def test_all_six_datasets_stand_in_every_file_in_the_same_order():
    assert list(DATA.files) == list(RESULTS.files) == list(PUBLISHED["datasets"]) == DATASETS


def test_the_sources_are_pinned_to_one_commit():
    assert DATA.source.endswith(f"/EfficientVideoAgent/{COMMIT}/data/")
    assert RESULTS.source.endswith(f"/EfficientVideoAgent/{COMMIT}/results-12k/")
    assert PUBLISHED["sources"]["repository"]["commit"] == COMMIT


def test_annotations_are_checked_by_size_and_sha256_and_results_by_their_blob():
    assert {(file.algorithm, len(file.digest)) for file in DATA.files.values()} == {("sha256", 64)}
    assert {(file.algorithm, len(file.digest)) for file in RESULTS.files.values()} == {("git_blob", 40)}
    assert {file.max_bytes for file in RESULTS.files.values()} == {100 << 20}


def test_no_file_of_a_manifest_lies_outside_its_folder():
    names = [file.name for manifest in (DATA, RESULTS) for file in manifest.files.values()]
    assert names == [Path(name).name for name in names]


def test_result_files_have_the_names_that_a_run_gives_them():
    names = {key: file.name for key, file in RESULTS.files.items()}
    assert names == {key: f"result_{key}.jsonl" for key in DATASETS} | {"mlvu": "result_mlvu_mcq.jsonl"}
    assert names == {key: entry["result_file"] for key, entry in PUBLISHED["datasets"].items()}


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_published_figures_are_the_repositorys_table(dataset):
    entry = PUBLISHED["datasets"][dataset]
    (row,) = [row for row in entry["published"] if row["source"] == "repository"]
    figures = (row["accuracy_percent"], row["average_rounds"], row["average_total_tokens"])
    assert (entry["rows"], entry["videos"], *figures) == TABLE[dataset]


def test_the_papers_own_row_is_there_where_it_differs():
    paper = {
        dataset: row
        for dataset, entry in PUBLISHED["datasets"].items()
        for row in entry["published"]
        if row["source"] == "paper"
    }
    assert paper == {"lsdbench": {"source": "paper", "accuracy_percent": 51.0}}


def test_every_figure_has_a_source_that_is_described():
    used = {row["source"] for entry in PUBLISHED["datasets"].values() for row in entry["published"]}
    assert used == set(PUBLISHED["sources"])
    assert PUBLISHED["sources"]["paper"]["arxiv"] == "2603.22918"


@needs_annotations
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_manifest_describes_the_annotation_files(dataset):
    file = DATA.files[dataset]
    path = ANNOTATIONS / file.name
    assert path.stat().st_size == file.max_bytes
    assert hash_content(path.read_bytes(), "sha256") == file.digest
    items = load_items(path)
    assert (len(items), len({item.videos[0] for item in items})) == TABLE[dataset][:2]


@needs_annotations
def test_the_folder_layouts_are_those_of_the_readme():
    root = Path("videos")
    folders = {
        dataset: {video_path(item, root).parent for item in load_items(ANNOTATIONS / DATA.files[dataset].name)}
        for dataset in DATASETS
    }
    mlvu = folders.pop("mlvu")
    assert set.union(*folders.values()) == {root}
    tasks = "1_plotQA 2_needle 3_ego 4_count 5_order 6_anomaly_reco 7_topic_reasoning"
    assert mlvu == {root / "video" / task for task in tasks.split()}


@pytest.mark.process
@needs_annotations
def test_all_six_annotation_files_come_through_the_real_command(tmp_path):
    with FileServer() as server:
        server.files.update({path.name: path.read_bytes() for path in ANNOTATIONS.iterdir()})
        done = called("data/fetch.py", "--source", server.url, "--output", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for file in DATA.files.values():
        assert (tmp_path / file.name).read_bytes() == (ANNOTATIONS / file.name).read_bytes()
