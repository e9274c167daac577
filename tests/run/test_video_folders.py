"""Where a run looks for its videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eva.files import PROJECT
from eva.run.options import Options, SettingsError
from eva.run.settings import choose_dataset

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
