"""The outcomes of a file and its origin -> its score, beside the published figures, with what limits them.

accuracy.py and the page both show what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.meta import read_meta
from eva.records.outcome import Outcome
from eva.records.result_file import read_outcomes
from eva.scoring.origin import Origin, describe_agent, find_origin
from eva.scoring.published import Published, caveat_lines, coverage_lines, published_json, published_lines
from eva.scoring.score import Score
from eva.scoring.summary import choice_line, file_json, file_lines, partial_line, unusable_lines


@dataclass(frozen=True)
class Assessment:
    """A result or a cache: where it comes from, and its figures over all its records."""

    origin: Origin
    score: Score

    @classmethod
    def of(cls, origin: Origin, outcomes: Sequence[Outcome]) -> Assessment:
        return cls(origin, Score(outcomes, origin.coverage.to_go))

    @property
    def indices(self) -> set[int]:
        return {outcome.index for outcome in self.score.outcomes}

    @property
    def agent(self) -> str:
        return describe_agent(self.score.outcomes, self.origin.meta)

    def lines(self) -> list[str]:
        """For people: the reference's lines, then the uncertainty, then the published figures of a known dataset."""
        origin, score = self.origin, self.score
        lines = file_lines(score) + ([choice_line(origin.coverage)] if origin.coverage.of_a_choice else [])
        if origin.published is None:
            return lines
        return [
            *lines,
            *published_lines(origin.published, self.indices, score.accuracy, score.interval),
            *self.settings_caveats(),
        ]

    def to_json(self) -> dict[str, Any]:
        """What `lines` say, for programs."""
        content = {"file": str(self.origin.path), **file_json(self.score, self.origin.coverage), "dataset": None}
        if self.origin.published is not None:
            content |= {**self.published_json(), "caveats": self.settings_caveats()}
        return content

    def published_json(self) -> dict[str, Any]:
        """{} where nothing is published of the dataset."""
        score, published = self.score, self.origin.published
        return published_json(published, self.indices, score.accuracy, score.interval) if published else {}

    def settings_caveats(self) -> list[str]:
        meta = self.origin.meta
        return caveat_lines(meta, self.origin.published) if meta else []

    def caveats(self) -> list[str]:
        """Everything that limits what the figures say."""
        coverage, published = self.origin.coverage, self.origin.published
        lines = [partial_line(self.score)] if coverage.partial else []
        only = coverage_lines(published, self.indices) if published else []
        lines += only or ([choice_line(coverage)] if coverage.of_a_choice else [])
        failed = self.score.failures[INFRASTRUCTURE]
        if failed:
            lines.append(
                f"{failed} ended by a failure of the infrastructure, which counts as wrong until they run again"
            )
        return [*lines, *unusable_lines(self.score), *self._unknown_settings(), *self.settings_caveats()]

    def _unknown_settings(self) -> list[str]:
        meta = self.origin.meta
        if meta is None:
            return ["The settings are unknown: there is no meta file beside this one"]
        lines = [] if meta.settings else ["The settings are unknown: the meta file beside this one does not name them"]
        return lines + (["Some of these records were made with unknown settings"] if meta.adopted else [])


def assess_file(path: Path, published: Mapping[str, Published]) -> Assessment:
    """Raises EvaError for a file that cannot be scored, and for a broken meta file beside it."""
    outcomes = read_outcomes(path)
    indices = {outcome.index for outcome in outcomes}
    return Assessment.of(find_origin(path, read_meta(path), indices, published), outcomes)
