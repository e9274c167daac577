"""What is told of a run while it works: one line for each outage, and one where it ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic

from eva.dataset.items import Item
from eva.records.outcome import Outcome

log = logging.getLogger(__name__)


class Progress:
    """A run that goes on. This one says nothing of its samples; commands/bar.py draws them."""

    def __init__(self) -> None:
        self._waits_since: float | None = None

    async def __aenter__(self) -> Progress:
        return self

    async def __aexit__(self, *error: object) -> None:
        """The samples have ended."""

    def count(self, outcome: Outcome) -> None:
        """One more sample has a record."""

    def note_outage(self, text: str) -> None:
        """`text` says which servers are down, and what then happens; it is empty as soon as all are up."""
        if text:
            self._waits_since = self._waits_since or monotonic()
            log.warning("%s", text)
        elif self._waits_since is not None:
            log.warning("all servers answer again, after %.0f s", monotonic() - self._waits_since)
            self._waits_since = None


def first_line(name: str, items: Sequence[Item], pending: Sequence[Item], model: str, addresses: Sequence[str]) -> str:
    """What the run is, and how much of it is to do."""
    done = len(items) - len(pending)
    return f"{name}: {done} of {len(items)} done, {len(pending)} to go; model {model} at {', '.join(addresses)}"
