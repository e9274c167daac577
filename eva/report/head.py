"""A run's figures, and what it was made with -> the head of the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eva.json_text import json_text
from eva.records.meta import Meta
from eva.report.grouping import by_evidence
from eva.report.samples import Run
from eva.scoring.figures import caveats, partial_lines
from eva.scoring.result_file import ResultFile
from eva.scoring.time_use import time_figures, time_lines

Head = dict[str, Any]


def make_head(run: Run, file: ResultFile) -> Head:
    """The figures as accuracy.py counts them; accuracies are fractions.

    Of a run that has not finished, `so_far` and `bounds` take the place of the accuracy and its interval.
    """
    score, partial = file.score, partial_lines(file.score)
    return {
        "key": run.name,
        "agent": run.agent,
        "file": str(file.path),
        "dataset": file.dataset,
        "total": score.total,
        "correct": score.correct,
        "so_far": partial[1] if partial else None,
        "bounds": score.accuracy_bounds if partial else None,
        "accuracy": score.accuracy,
        "interval": score.interval_95,
        "published": [asdict(one) for one in file.beside],
        "answered": score.answered,
        "empty": score.empty,
        "rounds": score.average_rounds,
        "tokens": score.average_total_tokens,
        "visual_tokens": score.average_visual_tokens,
        "seconds": score.average_seconds,
        "failures": list(score.failures.items()),
        "stop_reasons": list(score.stop_reasons.items()),
        "evidence": [f"{row.label}: {one}" for row in by_evidence([run]) for one in row.estimates if one],
        "caveats": [*partial[:1], *caveats(file)],
        "settings": _settings(file.meta),
        "made_with": [[name, json_text(value)] for name, value in (file.meta.settings if file.meta else {}).items()],
        "time_use": time_lines(time_figures(sample.times for sample in run.samples)),
        "started": max(map(str, file.meta.started), default="") if file.meta else "",
        "to_go": score.to_go,
    }


def _settings(meta: Meta | None) -> list[list[str]]:
    if meta is None:
        return []
    environment = dict(meta.environment)
    packages = environment.pop("packages", {})
    rows = [*meta.settings.items(), ("started", ", ".join(map(str, meta.started))), *environment.items()]
    rows += packages.items() if isinstance(packages, dict) else []
    return [[str(name), json_text(value)] for name, value in rows if value not in (None, "")]
