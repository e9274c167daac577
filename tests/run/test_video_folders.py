"""Where a run looks for its videos, and what its meta file says of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import row, write_rows
from videos import Recipe, encode

from eva.agents.choice import AgentChoice
from eva.endpoint.client import ChatModel, make_client
from eva.errors import EvaError
from eva.files import PROJECT
from eva.records.cache import open_cache
from eva.run.containers import describe_videos, write_containers
from eva.run.meta_content import begin_meta, with_videos
from eva.run.options import Options, SettingsError
from eva.run.settings import choose_dataset

# The table is read in a process that is left behind if it blocks.
pytestmark = pytest.mark.process

CONFIGURED = {"mlvu": {"jsonl": "mlvu.jsonl", "video_root": "data/videos/mlvu"}}


def options(dataset: str = "mlvu", **settings: Any) -> Options:
    return Options(dataset, **settings)


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({}, f"{PROJECT}/data/videos/mlvu"),
        ({"videos": "/disk"}, "/disk/mlvu"),
        ({"videos": "/disk", "video_root": "/own"}, "/own"),
        ({"videos": "/disk", "dataset": "mine", "jsonl": "mine.jsonl"}, "/disk/mine"),
        ({"videos": "$SCRATCH/videos"}, "$SCRATCH/videos/mlvu"),
    ],
)
def test_one_setting_names_the_folder_of_all_datasets(settings: dict[str, str], folder: str) -> None:
    assert choose_dataset(options(**settings), CONFIGURED).video_root == Path(folder)


def test_a_set_of_ones_own_needs_a_folder_of_videos() -> None:
    with pytest.raises(SettingsError, match="needs --jsonl and --video-root"):
        choose_dataset(options("mine", jsonl="mine.jsonl"), CONFIGURED)


def test_the_meta_file_names_the_table_of_containers_where_there_is_one(tmp_path: Path) -> None:
    jsonl = write_rows(tmp_path / "questions.jsonl", [row("a")])
    chosen = options(video_root=tmp_path, jsonl=jsonl, output_dir=tmp_path, frame_tool=Path("tool.py"))
    dataset = choose_dataset(chosen, CONFIGURED)
    with open_cache(dataset.cache) as cache:
        models = [ChatModel(make_client("http://127.0.0.1:9/v1", "k", 1), "model")]
        begin = partial(begin_meta, cache, models, dataset, agent=AgentChoice(), options=chosen)
        assert "videos" not in with_videos(begin(), tmp_path).environment
        write_containers(tmp_path, [encode(Recipe("clip.mp4", "libx264", count=5), tmp_path)], "a/repo at 1234")
        said = with_videos(begin(), tmp_path).environment["videos"]
    assert said == f"a/repo at 1234: 1 h264 ({tmp_path / 'containers.json'})"


def test_a_file_that_did_not_change_is_not_opened_again(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert "cannot be opened as a video" in write_containers(tmp_path, [tmp_path / "a.mp4"], "here")[1]
    table = tmp_path / "containers.json"
    table.write_text(table.read_text().replace("cannot be opened as a video", "as it was"))
    assert "as it was" in write_containers(tmp_path, [tmp_path / "a.mp4"], "here")[1]
    (tmp_path / "a.mp4").write_bytes(b"changed")
    assert "cannot be opened as a video" in write_containers(tmp_path, [tmp_path / "a.mp4"], "here")[1]


@pytest.mark.parametrize("text", ["{", "[]", '{"origin": "x"}', '{"origin": "x", "videos": 3}'])
def test_a_damaged_table_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "containers.json").write_text(text)
    with pytest.raises(EvaError, match=r"containers\.json cannot be read .*: delete it"):
        describe_videos(tmp_path)


def test_a_strange_codec_in_a_table_is_only_text(tmp_path: Path) -> None:
    rows = [{"codec": ["x"]}, {"error": "no"}]
    (tmp_path / "containers.json").write_text(json.dumps({"origin": "x", "videos": rows}))
    assert (describe_videos(tmp_path) or "").startswith("x: 1 ['x'], 1 cannot be opened (")
