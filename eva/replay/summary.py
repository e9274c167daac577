"""What a replay says at its end: how many records are identical, and what differs, by cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eva.replay.compare import Divergence
from eva.text import printable

# Divergences of one cause that are printed; the JSON file has all.
MOST_LINES = 10


@dataclass
class Summary:
    """The counts of the replay of `path`.

    Of `exceptions` there is no conversation. Of records `without_video` there is no video file. `unasked` are the
    questions without a record.
    """

    path: Path
    replayed: int = 0
    identical: int = 0
    exceptions: int = 0
    without_video: int = 0
    unasked: int = 0
    divergences: list[Divergence] = field(default_factory=list)

    def add(self, found: list[Divergence]) -> None:
        self.replayed += 1
        self.identical += not found
        self.divergences.extend(found)

    @property
    def proved(self) -> bool:
        """Whether all records are identical, or differ as documented."""
        return all(one.documented for one in self.divergences)

    def to_json(self) -> dict[str, Any]:
        return {
            "replayed": self.replayed,
            "identical": self.identical,
            "not_compared": {"exceptions": self.exceptions, "without_video": self.without_video},
            "questions_without_record": self.unasked,
            "divergences": [asdict(one) for one in self.divergences],
        }

    def lines(self) -> Iterator[str]:
        """The summary for a person."""
        yield f"Replay of {self.path}: {self.identical} of {self.replayed} identical"
        if self.unasked:
            yield f"Questions without a record: {self.unasked}"
        if self.without_video:
            yield (
                f"Not compared: the length and resolution of the video in {self.without_video} records without its "
                "file. The size that explains the most counts of frames and tokens is taken"
            )
        if self.exceptions:
            yield f"Not compared: why {self.exceptions} samples ended as an exception. They hold no conversation"
        for cause in sorted({one.cause for one in self.divergences}):
            yield from self._cause_lines(cause)

    def _cause_lines(self, cause: str) -> Iterator[str]:
        found = [one for one in self.divergences if one.cause == cause]
        yield f"{cause} ({len({one.index for one in found})} records):"
        yield from (f"  {_line(one)}" for one in found[:MOST_LINES])
        if len(found) > MOST_LINES:
            yield f"  and {len(found) - MOST_LINES} more (--json FILE has all)"


def _line(one: Divergence) -> str:
    place = "" if one.round is None else f", round {one.round}"
    recorded, replayed = (printable(repr(value)) for value in (one.recorded, one.replayed))
    return f"index {one.index}{place}, {one.field}: recorded {recorded}, replayed {replayed}"
