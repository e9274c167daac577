"""Annotation file -> items: the questions of a dataset, checked before anything runs (docs/protocol.md, section 1), and
where their videos are on disk, also in another container than the annotations name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any

from eva.errors import EvaError, ReadError, VideoError
from eva.json_text import mapping, numbered_lines, parse_json

# MLVU's annotations name the videos by absolute paths of another machine. The path inside the dataset follows these
# folders.
MLVU_PREFIX = ("MVLU", "MLVU")
KNOWN_KEYS = frozenset({"videos", "prompt", "reward_model", "index"})
# The first one wins where a folder has several.
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".wmv", ".3gp")

# The system says with these that there is no file at a path.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# It says with these that this user may not know, or that no file can have the name. Every other error is one of the
# disk or of the machine.
REFUSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


class AnnotationError(EvaError):
    """An annotation file that cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class Item:
    """One question.

    `index` identifies it in cache and result. `prompt` holds the turns as `{"role", "content"}`. `extra` holds the
    other keys of the annotation, for reports (`question_type` of LVBench, `Question_ID` of Video-Holmes, ...).
    """

    index: int
    videos: tuple[str, ...]
    prompt: tuple[Mapping[str, str], ...]
    ground_truth: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def load_items(path: Path) -> list[Item]:
    """Read an annotation file (JSONL). Blank lines are skipped.

    Raises AnnotationError for a file that cannot be read or has no item, for a line that is not an item, and for an
    index that two lines have.
    """
    items: list[Item] = []
    line_of: dict[int, int] = {}
    try:
        lines = list(numbered_lines(path.read_text(encoding="utf-8-sig").split("\n")))
    except OSError as error:
        raise AnnotationError(f"cannot read the annotation file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    for number, line in lines:
        try:
            item = parse_item(line, default_index=number - 1)
        except ValueError as error:
            raise AnnotationError(f"{path}, line {number}: {error}") from error
        if item.index in line_of:
            raise AnnotationError(
                f"{path}, line {number}: index {item.index} is that of line {line_of[item.index]} already; "
                "each item needs its own"
            )
        line_of[item.index] = number
        items.append(item)
    if not items:
        raise AnnotationError(f"{path} holds no items")
    return items


def parse_item(line: str, *, default_index: int) -> Item:
    """One annotation line as an Item. Raises ValueError, which says what is missing or of the wrong kind.

    A missing or non-integer `index` becomes `default_index`, the 0-based line number.
    """
    try:
        row = parse_json(line)
    except ValueError as error:
        raise ValueError(f"cannot be read as JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError("not an item: a JSON object is expected")
    videos, prompt, index = row.get("videos"), row.get("prompt"), row.get("index")
    if not isinstance(videos, list) or not videos or not all(isinstance(video, str) and video for video in videos):
        raise ValueError('not an item: "videos" must be a list with at least one path')
    if not isinstance(prompt, list) or not all(map(_is_turn, prompt)):
        raise ValueError('not an item: "prompt" must be a list of {"role": text, "content": text}')
    truth = mapping(row.get("reward_model")).get("ground_truth")
    if truth is None or isinstance(truth, (dict, list)):
        raise ValueError('not an item: "reward_model" must hold a "ground_truth"')
    return Item(
        index=index if type(index) is int else default_index,
        videos=tuple(videos),
        # Strict servers refuse a request with keys that they do not know, such as "name".
        prompt=tuple({"role": turn["role"], "content": turn["content"]} for turn in prompt),
        ground_truth=str(truth),
        extra={key: value for key, value in row.items() if key not in KNOWN_KEYS},
    )


def _is_turn(turn: object) -> bool:
    return isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content"))


def video_path(item: Item, video_root: Path) -> Path:
    """The path of the item's first video under `video_root`. The file need not exist.

    Raises VideoError for a path that leaves `video_root`. Links may leave it: the videos of a dataset are often on
    several disks.
    """
    name = item.videos[0]
    relative = PurePosixPath(name)
    parts = relative.parts
    if relative.is_absolute():
        below = [end for end in range(3, len(parts)) if parts[end - 2 : end] == MLVU_PREFIX]
        relative = PurePosixPath(*parts[below[0] :]) if below else relative
    if "\0" in name or ".." in relative.parts:
        raise VideoError(f"item {item.index}: the video path {name!r} leaves the video root {video_root}")
    path = Path(video_root, relative)
    # An absolute path replaces the root when it is joined. It is inside only if it names the root itself.
    if not path.is_relative_to(video_root):
        raise VideoError(
            f"item {item.index}: the video path {name!r} is not inside the video root {video_root}: "
            "give a root that holds it (--video-root / holds every absolute path)"
        )
    return path


def locate_video(path: Path) -> Path:
    """The file of an annotated video: `path` itself, or the file beside it with the same stem and a video suffix.

    A video that is downloaded today often has another container than the annotations name. Of several such files the
    first in the order of VIDEO_SUFFIXES counts. Raises VideoError if there is none that this user may read; ReadError
    where the disk does not say it.
    """
    if not path.name:
        raise VideoError(f"{path} names no video file")
    # `.5` in `lecture 1.5` is not a suffix: only the suffix of a container is replaced.
    stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    # Cameras write suffixes in capitals.
    others = (stem + written for suffix in VIDEO_SUFFIXES for written in (suffix, suffix.upper()))
    for name in (path.name, *others):
        candidate = path.with_name(name)
        if _is_file(candidate):
            if not os.access(candidate, os.R_OK):
                raise VideoError(f"the video {candidate} may not be read by this user")
            return candidate
    raise VideoError(f"the video {path} is missing, in another container too")


def locate_videos(items: Iterable[Item], video_root: Path) -> dict[str, Path | VideoError]:
    """Where each video of `items` is, or why it is missing, by its annotated name and in the order of the names."""
    places: dict[str, Path | VideoError] = {}
    for name, item in sorted({item.videos[0]: item for item in items}.items()):
        try:
            places[name] = locate_video(video_path(item, video_root))
        except VideoError as error:
            places[name] = error
    return places


def _is_file(path: Path) -> bool:
    try:
        return S_ISREG(path.stat().st_mode)
    except ValueError:  # a name that no file can have
        return False
    except OSError as error:
        if error.errno in ABSENT:
            return False
        if error.errno in REFUSED:
            raise VideoError(f"{path} cannot be looked up: {error.strerror}") from error
        raise ReadError(f"{path} cannot be looked up: {error.strerror}") from error
