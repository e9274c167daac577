"""The categories of a record's question. Pure.

The records of the reference lack the keys of the annotation: there the length and the path of the video tell.
A record may come from anybody, so a value of an unexpected kind gives no category.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from eva.dataset.catalog import category_rule
from eva.records.schema import Record

T = TypeVar("T")

# What a question without a category counts to where others have one.
UNKNOWN = "unknown"
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_MLVU_TASK = re.compile(r"\d+_\w+")
# Video-MME's groups are under 2 minutes, 4 to 15, and 30 to 60. The length of a file can differ a little from the
# annotated length, so each group extends to the start of the next one.
_GROUPS, _GROUPS_FROM_S = ("short", "medium", "long"), (4 * 60, 30 * 60)


def categories(dataset: str, record: Record) -> tuple[str, ...]:
    """The names of the question's categories, as the dataset writes them; () where none is known.

    A question of LVBench can have several. A dataset of one's own may give a text or a list as `category`.
    """
    rule = category_rule(dataset)
    if rule == "video folder":
        folder = PurePosixPath(record.outcome.video).parent.name
        return (folder,) if _MLVU_TASK.fullmatch(folder) else ()
    if rule == "video length":
        duration_s = record.video_duration_s
        return () if duration_s is None else (_GROUPS[bisect_right(_GROUPS_FROM_S, duration_s)],)
    return _listed(record.extra.get(rule))


def by_category(samples: Iterable[T], categories_of: Callable[[T], Sequence[str]]) -> dict[str, list[T]]:
    """The samples of each category, in the order in which the categories first come; {} where no sample has one.

    A sample can lack the category that others have: Video-MME's is the length of the video, and a video can be missing.
    Such samples come last, as UNKNOWN, so that none is left out.
    """
    groups: dict[str, list[T]] = {}
    rest = []
    for sample in samples:
        names = categories_of(sample)
        for name in names:
            groups.setdefault(name, []).append(sample)
        if not names:
            rest.append(sample)
    if groups and rest:
        groups[UNKNOWN] = [*groups.pop(UNKNOWN, []), *rest]
    return groups


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
