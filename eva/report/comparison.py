"""Two results -> the figures at the top of a report that compares them."""

from __future__ import annotations

from eva.scoring.compare import compare
from eva.scoring.figures import comparison_lines, comparison_notes
from eva.scoring.result_file import ResultFile

Figures = dict[str, list[list[str]] | list[str]]


def comparison_figures(before: ResultFile, now: ResultFile, names: tuple[str, str]) -> Figures:
    """`figures` as (name, value), and `notes`; `names` are those of the two on the page. Differences are now minus
    before.

    Raises EvaError where the two have no question in common, or different ones under one index.
    """
    agents = [["Agents", f"{before.agent} in {names[0]}, {now.agent} in {names[1]}"]]
    lines = [line.partition(": ") for line in comparison_lines(compare(before, now), names)]
    return {
        "figures": (agents if before.agent != now.agent else [])
        # A filter of the page shows the samples of a flip, so their indices are left out.
        + [[name, value.partition(" (index ")[0]] for name, _, value in lines if not name.startswith(" ")],
        "notes": comparison_notes(before, now, names),
    }
