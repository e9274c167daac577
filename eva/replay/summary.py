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

    `exceptions` hold no conversation, and are not replayed. Records `without_video` have no video file here. `unasked`
    are the questions without a record.
    """

    path: Path
    replayed: int = 0
    identical: int = 0
    exceptions: int = 0
    without_video: int = 0
    unasked: int = 0
    divergences: list[Divergence] = field(default_factory=list)

    @property
    def proved(self) -> bool:
        """Whether there are records, and all are identical or differ as documented."""
        return self.replayed > 0 and all(one.documented for one in self.divergences)

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
        yield f"Replay of {printable(str(self.path))}: {self.identical} of {self.replayed} identical"
        if self.unasked:
            yield f"Questions without a record: {self.unasked}"
        if self.exceptions:
            yield f"Not replayed: {self.exceptions} samples that ended as an exception; their records hold no replies"
        if self.without_video:
            yield (
                f"Not compared: length and resolution of the video in {self.without_video} records whose video is not "
                "here; the size that explains most of their counts stands for the size of each video"
            )
        for cause in sorted({one.cause for one in self.divergences}):
            yield from self._cause_lines(cause)

    def _cause_lines(self, cause: str) -> Iterator[str]:
        found = [one for one in self.divergences if one.cause == cause]
        records = len({one.index for one in found})
        yield f"{cause} ({records} record{'s' * (records != 1)}):"
        yield from (f"  {_line(one)}" for one in found[:MOST_LINES])
        if len(found) > MOST_LINES:
            yield f"  and {len(found) - MOST_LINES} more (--json FILE has all)"


def _line(one: Divergence) -> str:
    place = "" if one.round is None else f", round {one.round}"
    recorded, replayed = (printable(repr(value)) for value in (one.recorded, one.replayed))
    return f"index {one.index}{place}, {one.field}: recorded {recorded}, replayed {replayed}"
