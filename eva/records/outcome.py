"""What a record counts for: a few small fields, so that those of ten thousand records can be held."""

from __future__ import annotations

from dataclasses import dataclass

from eva.protocol.stop_reasons import EXCEPTION, INFRASTRUCTURE, MODEL, SETTLED

# The counts that a record which is scored must have; one with an unusable value is left out of the averages.
COUNTS = ("num_rounds", "total_tokens")


@dataclass(frozen=True)
class Outcome:
    """What a record counts for. `video` is the first one's path, `seconds` the sample's wall time.

    A count and the seconds are None where the record does not say, or says what cannot be: a text, NaN, less than 0.
    """

    index: int
    ground_truth: str
    answer: str
    stop_reason: str
    num_rounds: int | float | None
    total_tokens: int | float | None
    error: str
    video: str = ""
    seconds: float | None = None
    failure: str = ""

    @property
    def correct(self) -> bool:
        return same_answer(self.ground_truth, self.answer)

    @property
    def settled(self) -> bool:
        return not self.error and self.stop_reason in SETTLED


def same_answer(ground_truth: str, answer: str) -> bool:
    return ground_truth.strip().upper() == answer.strip().upper()


def derive_failure(stop_reason: str, answer: str) -> str:
    """Whose failure it is where a record does not say, as the reference's do not: by its stop reason."""
    if stop_reason == EXCEPTION:
        return INFRASTRUCTURE
    return "" if answer.strip() else MODEL
