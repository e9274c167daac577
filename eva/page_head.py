"""The outcomes of a run, and what it was made with -> the head of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva.evidence import Estimate, evidence
from eva.interval import clustered_interval
from eva.meta import Meta, read_meta
from eva.page_details import text
from eva.published import Published, caveat_lines, comparison_json, identify, load_published
from eva.runs import Sample
from eva.scoring import Outcome, score

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


def dataset_of(path: Path, meta: Meta | None) -> str:
    """The dataset of a result or cache: as the meta file beside it says, else as the file is called."""
    if meta is not None and meta.settings.get("dataset"):
        return str(meta.settings["dataset"])
    name = path.stem
    for beginning in ("result_", "cache_"):
        name = name.removeprefix(beginning)
    return {"mlvu_mcq": "mlvu"}.get(name, name)


def make_head(path: Path, key: str, outcomes: Sequence[Outcome], samples: Sequence[Sample], known: Known) -> Head:
    """The figures over all `outcomes`, as accuracy.py counts them; accuracies are fractions. `samples` are the same.

    Raises EvaError for a broken meta file.
    """
    meta = read_meta(path)
    figures = score(outcomes, total=len(outcomes))
    interval = clustered_interval([o.video for o in outcomes], [o.correct for o in outcomes])
    published = identify(path, outcomes, known.published) if outcomes else None
    beside = comparison_json(published, outcomes, figures.accuracy, interval) if published else {}
    return {
        "key": key,
        "file": str(path),
        "dataset": dataset_of(path, meta),
        "total": figures.total,
        "correct": figures.correct,
        "accuracy": figures.accuracy,
        "interval": [interval.low, interval.high] if interval else None,
        "published": beside.get("published", []),
        "answered": figures.answered,
        "empty": figures.empty,
        "rounds": figures.average_rounds,
        "tokens": figures.average_tokens,
        "seconds": figures.average_seconds if any(o.seconds is not None for o in outcomes) else None,
        "failures": [list(pair) for pair in figures.failures],
        "stop_reasons": [list(pair) for pair in figures.stop_reasons],
        "evidence": _evidence(samples),
        "caveats": _caveats(meta, published, beside, known),
        "settings": _settings(meta),
    }


def _evidence(samples: Sequence[Sample]) -> list[str]:
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
    return [f"{name}: {_estimate(one)}" for name, one in parts if one is not None]


def _estimate(one: Estimate) -> str:
    between = f" ({one.interval.low:.1%} to {one.interval.high:.1%})" if one.interval else ""
    return f"{one.value:.1%}{between} of {one.count:,}"


def _caveats(meta: Meta | None, published: Published | None, beside: Mapping[str, Any], known: Known) -> list[str]:
    """What keeps the figures from being those of one whole run, at the published settings where there are any."""
    lines = []
    if beside and beside["covered"] < beside["questions"]:
        lines.append(f"Only {beside['covered']} of {beside['questions']} questions; the published figures are over all")
    elif meta and meta.coverage and not meta.coverage.get("complete"):
        lines.append(f"Partial: {meta.coverage.get('pending')} of {meta.coverage.get('items')} questions are to come")
    if meta is None:
        return [*lines, "The settings are unknown: there is no meta file beside this one"]
    if published:
        lines += caveat_lines(meta, published.dataset, known.published_path, known.manifest_path)
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
    return [[str(name), text(value)] for name, value in rows if value not in (None, "")]
