"""The thumbnails in a report: as many as the cap allows, each once, however many samples show it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from eva.records.cache import encode
from eva.report.page import PER_BLOCK, Blocks
from eva.report.thumbnails import FrameRoots, NoFrameError

# Frames that are decoded at the same time.
_BATCH = 64


@dataclass
class ThumbnailBlocks:
    """Numbers the frames that samples show, and writes where the page finds each one.

    `blocks` gets the pictures as base64 of WebP files, and the places of the frames, PER_BLOCK at a time. All pictures
    together have at most `cap_bytes` of base64. After the first picture above the cap no further one is embedded.
    `pool` has threads: decoding is most of the work.
    """

    roots: FrameRoots
    cap_bytes: int
    blocks: Blocks
    pool: Executor
    used_bytes: int = 0
    embedded: int = 0
    full: bool = False
    refused: dict[str, int] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _unwritten: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """How many different frames the samples show."""
        return len(self._numbers)

    @property
    def linked(self) -> int:
        """How many are not embedded but shown from their files, as long as these exist."""
        return self.frames - self.embedded - sum(self.refused.values())

    def number(self, name: str) -> int:
        """The number of a frame, by its path."""
        return self._numbers.setdefault(name, len(self._numbers))

    def write(self, order: Iterable[int]) -> None:
        """Write every frame. `order` has their numbers, first those that must have a thumbnail if any can."""
        names = list(self._numbers)
        places: list[int | str] = [""] * len(names)
        wanted = iter(dict.fromkeys(order))
        while batch := list(islice(wanted, _BATCH)):
            for number, made in zip(batch, self._encode_all([names[number] for number in batch]), strict=True):
                places[number] = self._embed(made)
        self._write_pictures()
        for first in range(0, len(names), PER_BLOCK):
            part = zip(names[first : first + PER_BLOCK], places[first : first + PER_BLOCK], strict=True)
            self.blocks.write_lines(f"frames-{first // PER_BLOCK}", (encode(self._place(*one)) for one in part))

    def _place(self, name: str, place: int | str) -> dict[str, Any]:
        """The `url` of a frame's file and, if it is embedded, its number `at`; or the reason `no`."""
        if isinstance(place, int):
            return {"at": place, "url": Path(name).as_uri()}
        try:
            return {"no": place} if place else {"url": self.roots.find(name).as_uri()}
        except NoFrameError as reason:
            return {"no": str(reason)}

    def _write_pictures(self) -> None:
        if self._unwritten:
            first = self.embedded - len(self._unwritten)
            self.blocks.write(f"pictures-{first // PER_BLOCK}", json.dumps(self._unwritten))
            self._unwritten = []

    def _encode_all(self, batch: Sequence[str]) -> Iterator[str | NoFrameError]:
        make = self._check if self.full else self._encode
        return self.pool.map(make, batch)

    def _encode(self, name: str) -> str | NoFrameError:
        try:
            return base64.b64encode(self.roots.thumbnail(name)).decode("ascii")
        except NoFrameError as reason:
            return reason

    def _check(self, name: str) -> str | NoFrameError:
        try:
            self.roots.find(name)
        except NoFrameError as reason:
            return reason
        return ""

    def _embed(self, made: str | NoFrameError) -> int | str:
        """The number of an embedded picture, the reason for no picture, or '' for one shown from its file."""
        if isinstance(made, NoFrameError):
            self.refused[str(made)] = self.refused.get(str(made), 0) + 1
            return str(made)
        self.full = self.full or self.used_bytes + len(made) > self.cap_bytes
        if self.full:
            return ""
        self.used_bytes += len(made)
        self.embedded += 1
        self._unwritten.append(made)
        if len(self._unwritten) == PER_BLOCK:
            self._write_pictures()
        return self.embedded - 1
