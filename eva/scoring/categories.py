"""The categories of a record's question, and where in the video the answer is.

The records of the reference lack the keys of the annotation: there the length and the path of the video tell.
A record may come from anybody, so a value of an unexpected kind gives no category.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from eva.dataset.catalog import category_rule
from eva.records.schema import Record

_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_REFERENCE = re.compile(r"(\d{1,4}):(\d\d)-(\d{1,4}):(\d\d)")
_MLVU_TASK = re.compile(r"\d+_\w+")
# Video-MME's groups are under 2 minutes, 4 to 15, and 30 to 60. The length of a file can differ a little from the
# annotated length, so each group extends to the start of the next one.
_MEDIUM_FROM_S, _LONG_FROM_S = 4 * 60, 30 * 60


def categories(dataset: str, record: Record) -> tuple[str, ...]:
    """The names of the question's categories, as the dataset writes them; () where none is known.

    A question of LVBench can have several. A dataset of one's own may give a text or a list as `category`.
    """
    rule = category_rule(dataset)
    if rule == "video folder":
        return _mlvu_task(record.outcome.video)
    if rule == "video length":
        return _videomme_group(record.video_duration_s)
    return _listed(record.extra.get(rule))


def time_reference_s(record: Record) -> tuple[float, float] | None:
    """LVBench's `time_reference` ("08:17-09:02") as (start, end) in seconds, both as annotated, in whole seconds.

    None where it is open ("08:17-None"), absent, or ends before it starts ("63:20-03:35"), which is an error.
    """
    value = record.extra.get("time_reference")
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


def _mlvu_task(video: str) -> tuple[str, ...]:
    folder = PurePosixPath(video).parent.name
    return (folder,) if _MLVU_TASK.fullmatch(folder) else ()


def _videomme_group(duration_s: float | None) -> tuple[str, ...]:
    if duration_s is None:
        return ()
    if duration_s < _MEDIUM_FROM_S:
        return ("short",)
    return ("medium",) if duration_s < _LONG_FROM_S else ("long",)
