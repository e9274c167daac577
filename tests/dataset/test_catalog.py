"""`eva/datasets.json`: complete, pinned, and equal to the annotation files where they are at hand."""

from __future__ import annotations

import hashlib

import pytest
from harness import SHARED, read_records

from eva.dataset.catalog import load_catalog
from eva.dataset.items import load_items
from eva.run.settings import known_datasets

ANNOTATIONS = SHARED / "annotations"
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
DATASETS = load_catalog().datasets


def test_the_published_figures_are_the_repositorys_table_and_the_papers_where_it_differs():
    for name, one in DATASETS.items():
        row = one.published[0]
        figures = (row["accuracy_percent"], row["average_rounds"], row["average_total_tokens"])
        assert (row["source"], one.rows, one.videos, *figures) == ("repository", *TABLE[name])
    assert list(DATASETS) == list(TABLE)
    more = {name: one.published[1:] for name, one in DATASETS.items() if one.published[1:]}
    assert more == {"lsdbench": [{"source": "paper", "accuracy_percent": 51.0}]}


def test_a_run_gives_its_files_the_names_of_the_reference():
    for name, paths in known_datasets().items():
        stem = {"mlvu": "mlvu_mcq"}.get(name, name)
        assert (paths["cache"], paths["result"]) == (f"cache_{stem}.jsonl", f"result_{stem}.jsonl")
        assert name == "demo" or paths["jsonl"] == f"data/{DATASETS[name].annotations.name}"


@needs_annotations
@pytest.mark.parametrize("dataset", TABLE)
def test_the_annotation_files_are_those_of_the_catalog_and_each_row_loads_as_it_is(dataset):
    path = ANNOTATIONS / DATASETS[dataset].annotations.name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == DATASETS[dataset].annotations.sha256
    items = load_items(path)
    assert (len(items), len({item.videos[0] for item in items})) == TABLE[dataset][:2]
    for number, (item, raw) in enumerate(zip(items, read_records(path), strict=True)):
        assert (item.index, list(item.videos)) == (raw.get("index", number), raw["videos"])
        assert [dict(turn) for turn in item.prompt] == raw["prompt"]
        assert item.ground_truth == raw["reward_model"]["ground_truth"]
    assert sum(item.ground_truth == "@" for item in items) == (2 if dataset == "mlvu" else 0)
