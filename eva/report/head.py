"""The outcomes of a run, and what it was made with -> the head of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.json_text import json_text
from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.meta import Meta
from eva.records.outcome import Outcome
from eva.report.samples import Sample
from eva.scoring.evidence import Estimate, evidence, without_interval
from eva.scoring.interval import clustered_interval
from eva.scoring.origin import Origin, find_origin
from eva.scoring.published import Published, caveat_lines, comparison_json, load_published
from eva.scoring.score import Score, score
from eva.scoring.summary import choice_line, partial_line, so_far_line, unusable_lines

Head = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """What a run is held against: the published figures, and the checksums of the published questions."""

    published_path: Path
    manifest_path: Path
    published: Mapping[str, Published]

    @classmethod
    def load(cls, home: Path) -> Known:
        """From the project's folder."""
        path = home / "results-12k" / "published.json"
        return cls(path, home / "data" / "manifest.json", load_published(path))


def make_head(path: Path, key: str, outcomes: Sequence[Outcome], samples: Sequence[Sample], known: Known) -> Head:
    """The figures over all `outcomes`, as accuracy.py counts them; accuracies are fractions. `samples` are the same.

    Of a run that has not finished `so_far` and `bounds` stand in the place of the accuracy and its interval.
    Raises EvaError for a broken meta file.
    """
    indices = {outcome.index for outcome in outcomes}
    origin = find_origin(path, indices, known.published)
    partial, to_go = origin.coverage.partial, origin.coverage.to_go
    figures = score(outcomes, total=len(outcomes) + (to_go or 0))
    interval = None if partial else clustered_interval([o.video for o in outcomes], [o.correct for o in outcomes])
    accuracy = None if partial else figures.accuracy
    published = origin.published if outcomes else None
    beside = comparison_json(published, indices, accuracy, interval) if published else {}
    return {
        "key": key,
        "file": str(path),
        "dataset": origin.dataset,
        "total": figures.total,
        "correct": figures.correct,
        "so_far": so_far_line(figures, to_go) if partial else None,
        "bounds": list(figures.bounds) if partial and to_go is not None else None,
        "accuracy": accuracy,
        "interval": [interval.low, interval.high] if interval else None,
        "published": beside.get("published", []),
        "answered": figures.answered,
        "empty": figures.empty,
        "rounds": figures.average_rounds,
        "tokens": figures.average_tokens,
        "seconds": figures.average_seconds if any(o.seconds is not None for o in outcomes) else None,
        "failures": [list(pair) for pair in figures.failures],
        "stop_reasons": [list(pair) for pair in figures.stop_reasons],
        "evidence": _evidence(samples, partial=partial),
        "caveats": _caveats(origin, figures, beside, known),
        "settings": _settings(origin.meta),
    }


def _evidence(samples: Sequence[Sample], *, partial: bool) -> list[str]:
    """Whether the agent looked where the annotators found the answer, which only LVBench tells."""
    found = evidence(
        [sample.video for sample in samples],
        [sample.looked_into_reference for sample in samples],
        [sample.correct for sample in samples],
    )
    if found is None:
        return []
    parts = [("Looked into the annotated time", found.looked), ("accuracy where it did", found.accuracy_with),
             ("where it did not", found.accuracy_without)]  # fmt: skip
    return [f"{name}: {_estimate(without_interval(one) if partial else one)}" for name, one in parts if one is not None]


def _estimate(one: Estimate) -> str:
    between = f" ({one.interval.low:.1%} to {one.interval.high:.1%})" if one.interval else ""
    return f"{one.value:.1%}{between} of {one.count:,}"


def _caveats(origin: Origin, figures: Score, beside: Mapping[str, Any], known: Known) -> list[str]:
    """What keeps the figures from being those of one whole run, at the published settings where there are any."""
    meta, coverage = origin.meta, origin.coverage
    lines = [partial_line(figures, coverage.to_go)] if coverage.partial else []
    if beside and beside["covered"] < beside["questions"]:
        lines.append(f"Only {beside['covered']} of {beside['questions']} questions; the published figures are over all")
    elif coverage.of_a_choice:
        lines.append(choice_line(coverage))
    failed = dict(figures.failures)[INFRASTRUCTURE]
    if failed:
        lines.append(f"{failed} ended by a failure of the infrastructure, which counts as wrong until they run again")
    return [*lines, *unusable_lines(figures), *_settings_caveats(meta, beside.get("dataset"), known)]


def _settings_caveats(meta: Meta | None, dataset: str | None, known: Known) -> list[str]:
    lines = []
    if meta is None:
        return ["The settings are unknown: there is no meta file beside this one"]
    if not meta.settings:
        lines.append("The settings are unknown: the meta file beside this one does not name them")
    if dataset:
        lines += caveat_lines(meta, dataset, known.published_path, known.manifest_path)
    elif meta.mixed:
        lines.append("Mixed: parts of this result were made with different settings")
    if meta.adopted:
        lines.append("Some of these records were made with unknown settings")
    return lines


def _settings(meta: Meta | None) -> list[list[str]]:
    if meta is None:
        return []
    environment = dict(meta.environment)
    packages = environment.pop("packages", {})
    rows = [*meta.settings.items(), ("started", ", ".join(map(str, meta.started))), *environment.items()]
    rows += packages.items() if isinstance(packages, dict) else []
    return [[str(name), json_text(value)] for name, value in rows if value not in (None, "")]
