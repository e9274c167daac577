"""What a record counts for: a few small fields, so that those of ten thousand records can be held."""

from __future__ import annotations

from dataclasses import dataclass

from eva.protocol.option import can_be_letter
from eva.protocol.stop_reasons import EXCEPTION, INFRASTRUCTURE, MODEL, SETTLED

# The counts that a record which is scored must have; one with an unusable value is left out of the averages.
COUNTS = ("num_rounds", "total_tokens")


@dataclass(frozen=True)
class Outcome:
    """What a record counts for. `video` is the first one's path; `options` is how many the question has.

    A number is None where the record does not say it, or says what cannot be: a text, NaN, less than 0.
    `replies_cut` is how many replies ended at their limit of tokens.
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
    options: int | None = None
    visual_tokens: int | float | None = None
    agent: str = "eva"
    replies_cut: int = 0

    @property
    def correct(self) -> bool:
        # An empty answer is never right, also where the ground truth is empty.
        return bool(self.answer.strip()) and same_answer(self.ground_truth, self.answer)

    @property
    def chance(self) -> float | None:
        """How likely a guess among the options is right; None where that is unknown.

        A ground truth that is none of the letters, as `@` in two questions of MLVU, is never right.
        """
        if self.options is None:
            return None
        return 1 / self.options if can_be_letter(self.ground_truth, self.options) else 0.0

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
