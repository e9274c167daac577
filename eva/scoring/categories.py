"""The categories of a record's question, the length of its video, and where in the video the answer is. Pure.

The records of the reference lack the keys of the annotation: there the transcript and the path of the video tell.
A record may come from anybody, so a value of an unexpected kind gives no category.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

_LENGTH = re.compile(r"Video Length: (\d{1,9}) seconds\. Original video resolution: ")
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_REFERENCE = re.compile(r"(\d{1,4}):(\d\d)-(\d{1,4}):(\d\d)")
_MLVU_TASK = re.compile(r"\d+_\w+")
# Video-MME's groups are under 2 minutes, 4 to 15, and 30 to 60. The length of a file can differ a little from the
# annotated length, so each group extends to the start of the next one.
_MEDIUM_FROM_S, _LONG_FROM_S = 4 * 60, 30 * 60


def categories(dataset: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the question's categories, as the dataset writes them; () where none is known.

    A question of LVBench can have several. A dataset of one's own may give a text as `category`.
    """
    if dataset == "lvbench":
        return _listed(record.get("question_type"))
    if dataset == "videoholmes":
        return _texts(record.get("Question_Type"))
    if dataset == "mlvu":
        return _mlvu_task(record)
    if dataset == "videomme":
        return _videomme_group(record)
    return _texts(record.get("category"))


def video_duration_s(record: Mapping[str, Any]) -> float | None:
    """The video's length in seconds; of older records in the whole seconds of the opening message."""
    duration_s: Any = record.get("video_duration_s")
    is_number = isinstance(duration_s, (int, float)) and not isinstance(duration_s, bool)
    if is_number and 0.001 <= duration_s <= 1e9:
        return float(duration_s)
    messages = record.get("messages")
    found = _LENGTH.search(messages) if isinstance(messages, str) else None
    return float(found[1]) if found else None


def time_reference_s(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """LVBench's `time_reference` ("08:17-09:02") as (start, end) in seconds, both as annotated, in whole seconds.

    None where it is open ("08:17-None"), absent, or ends before it starts ("63:20-03:35"), which is an error.
    """
    value = record.get("time_reference")
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    start_s, end_s = (float(60 * int(found[part]) + int(found[part + 1])) for part in (1, 3))
    return (start_s, end_s) if start_s <= end_s else None


def _texts(value: object) -> tuple[str, ...]:
    return (value.strip(),) if isinstance(value, str) and value.strip() else ()


def _listed(value: object) -> tuple[str, ...]:
    """LVBench writes the list as a text that Python printed: "['reasoning', 'entity recognition']"."""
    if isinstance(value, str) and value.startswith("["):
        value = [single or double for single, double in _QUOTED.findall(value)]
    if isinstance(value, list):
        # Each once, in their order: a type that is listed twice counts once.
        return tuple(dict.fromkeys(text for part in value for text in _texts(part)))
    return _texts(value)


def _mlvu_task(record: Mapping[str, Any]) -> tuple[str, ...]:
    videos = record.get("videos")
    if not isinstance(videos, list) or not videos or not isinstance(videos[0], str):
        return ()
    folder = PurePosixPath(videos[0]).parent.name
    return (folder,) if _MLVU_TASK.fullmatch(folder) else ()


def _videomme_group(record: Mapping[str, Any]) -> tuple[str, ...]:
    duration_s = video_duration_s(record)
    if duration_s is None:
        return ()
    if duration_s < _MEDIUM_FROM_S:
        return ("short",)
    return ("medium",) if duration_s < _LONG_FROM_S else ("long",)
