"""The thumbnails in a report: as many as the cap allows, each once, however many samples show it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from eva.report.page import PER_BLOCK
from eva.report.thumbnails import FrameRoot, NoFrameError

# Frames that are decoded at the same time.
_BATCH = 64

WriteBlock = Callable[[str, str], None]


@dataclass
class ThumbnailBlocks:
    """Takes frames by their paths and says where the page finds each one.

    `write_block(name, json)` gets the pictures as base64 of WebP files, PER_BLOCK at a time. All of them together have
    at most `cap_bytes` of base64. After the first picture above the cap no further one is embedded. `pool` has threads:
    decoding is most of the work.
    """

    root: FrameRoot
    cap_bytes: int
    write_block: WriteBlock
    pool: Executor
    used_bytes: int = 0
    embedded: int = 0
    full: bool = False
    refused: dict[str, int] = field(default_factory=dict)
    _places: dict[str, int | str] = field(default_factory=dict)
    _unwritten: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """How many different frames the samples show."""
        return len(self._places)

    @property
    def linked(self) -> int:
        """How many are not embedded but shown from their files, as long as these exist."""
        return self.frames - self.embedded - sum(self.refused.values())

    def take(self, names: Iterable[str]) -> None:
        """Embed those frames that are new, in this order, until the cap is reached."""
        new = iter([name for name in dict.fromkeys(names) if name not in self._places])
        while batch := list(islice(new, _BATCH)):
            for name, made in zip(batch, self._encode_all(batch), strict=True):
                self._places[name] = self._embed(made)

    def place(self, name: str) -> dict[str, Any]:
        """Where the page finds a frame that was taken: the `url` of its file and, if it is embedded, its
        number `at`; or the reason `no`."""
        place = self._places[name]
        if isinstance(place, int):
            return {"at": place, "url": Path(name).as_uri()}
        try:
            return {"no": place} if place else {"url": self.root.find(name).as_uri()}
        except NoFrameError as reason:
            return {"no": str(reason)}

    def close(self) -> None:
        """Write the last pictures."""
        if self._unwritten:
            first = self.embedded - len(self._unwritten)
            self.write_block(f"pictures-{first // PER_BLOCK}", json.dumps(self._unwritten))
            self._unwritten = []

    def _encode_all(self, batch: Sequence[str]) -> Iterator[str | NoFrameError]:
        make = self._check if self.full else self._encode
        return self.pool.map(make, batch)

    def _encode(self, name: str) -> str | NoFrameError:
        try:
            return base64.b64encode(self.root.thumbnail(name)).decode("ascii")
        except NoFrameError as reason:
            return reason

    def _check(self, name: str) -> str | NoFrameError:
        try:
            self.root.find(name)
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
            self.close()
        return self.embedded - 1
