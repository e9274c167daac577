"""A result or a cache: what each line counts for, and what is known of the file beside its records.

Every command and the page ask here, so all say the same of a file: also how many of the chosen questions it holds. A
run can choose a part of the questions (`--sample`, `--ids`). It is finished when it has asked all that any of its runs
chose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from eva.records.meta import Meta, read_meta
from eva.records.outcome import Outcome, same_answer
from eva.records.result_file import read_scored
from eva.scoring.categories import categories
from eva.scoring.published import Beside, Published, put_beside
from eva.scoring.score import Score, make_score
from eva.text import printable

# A larger number is an error in a meta file, and would fill the memory.
_MAX_QUESTIONS = 10_000_000


@dataclass(frozen=True)
class Answered:
    """One line of a result: what it counts for, all its videos, and the categories of its question."""

    outcome: Outcome
    videos: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Coverage:
    """`recorded` questions have a record, `to_go` more were chosen, and the set has `questions`. None: nobody knows."""

    recorded: int
    to_go: int | None
    questions: int | None = None

    @property
    def partial(self) -> bool:
        """Whether the run has not finished, or may not have finished: nobody knows it of a foreign cache."""
        return self.to_go != 0

    @property
    def of_a_choice(self) -> bool:
        """Whether the run has finished and was to ask a part of the questions."""
        return not self.partial and self.questions is not None and self.recorded < self.questions

    @property
    def choice(self) -> str:
        return f"Complete for {self.recorded} of {self.questions} questions: the others were not chosen"


@dataclass(frozen=True)
class ResultFile:
    """All lines of a result or a cache, in their order. `meta` is None where there is no meta file.

    `dataset` is '' where nothing tells it, and `published` None where nothing is published of it.
    """

    path: Path
    meta: Meta | None
    dataset: str
    published: Published | None
    coverage: Coverage
    lines: Sequence[Answered]

    @classmethod
    def of(
        cls, path: Path, meta: Meta | None, lines: Sequence[Answered], published: Mapping[str, Published]
    ) -> ResultFile:
        """`meta` is the meta file beside the file at `path`."""
        indices = {line.outcome.index for line in lines}
        dataset = dataset_of(meta, indices, published)
        known = published.get(dataset)
        coverage = measure(path, meta.coverage if meta else {}, indices, rows=known.rows if known else None)
        return cls(path, meta, dataset, known, coverage, lines)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        return [line.outcome for line in self.lines]

    @cached_property
    def samples(self) -> dict[int, Answered]:
        """By index. Of several lines for one index the last counts, as in a cache."""
        return {line.outcome.index: line for line in self.lines}

    def last(self) -> ResultFile:
        """The file with one line for each index."""
        return replace(self, lines=list(self.samples.values()))

    @cached_property
    def score(self) -> Score:
        """Over all lines, as the reference counts."""
        return make_score(self.outcomes, self.coverage.to_go)

    @property
    def covered(self) -> int:
        """How many questions of the published dataset have a record."""
        return len(self.samples.keys() & set(range(self.published.rows))) if self.published else 0

    @property
    def beside(self) -> list[Beside]:
        return put_beside(self.published, self.samples, self.score)

    @property
    def agent(self) -> str:
        """Who played, with the frames of a baseline: `eva`, `uniform, 8 frames`. A mixed file has several."""
        settings = self.meta.settings if self.meta and not self.meta.mixed else {}
        agents = list(dict.fromkeys(one.agent for one in self.outcomes)) or [str(settings.get("agent", "eva"))]
        nframes, frames = settings.get("nframes"), ""
        if agents == [settings.get("agent")] and type(nframes) is int:
            frames = ", 1 frame" if nframes == 1 else f", {nframes} frames"
        elif agents == [settings.get("agent")] and "match_sha256" in settings:
            frames = ", matched tokens"
        return printable(" and ".join(agents) + frames, limit=60)


def read_result(path: Path, published: Mapping[str, Published]) -> ResultFile:
    """Raises EvaError for a file that cannot be scored, and for a broken meta file beside it."""
    # The categories depend on the dataset, and the dataset can depend on all indices.
    # What is not small can be gigabytes.
    read = [(one.outcome, replace(one, messages="", trajectory=None)) for one in read_scored(path)]
    file = ResultFile.of(path, read_meta(path), [Answered(outcome) for outcome, _ in read], published)
    return replace(file, lines=[Answered(one, rest.videos, categories(file.dataset, rest)) for one, rest in read])


def dataset_of(meta: Meta | None, indices: Collection[int], published: Mapping[str, Published]) -> str:
    """The dataset that the meta file names; where it names none, the dataset with exactly these indices, else ''.

    The name of the file says nothing: somebody may have renamed it.
    """
    named = named_dataset(meta)
    if named:
        return named
    found = frozenset(indices)
    matches = (name for name, one in published.items() if len(found) == one.rows and found == set(range(one.rows)))
    return next(matches, "")


def named_dataset(meta: Meta | None) -> str:
    """The dataset that a meta file names; '' where it names none, and without a meta file."""
    named = meta.settings.get("dataset") if meta else None
    return named if isinstance(named, str) else ""


def question_difference(a: Answered, b: Answered) -> str:
    """What shows that two samples are of different questions, '' if nothing does. A record may not name its videos."""
    truths = a.outcome.ground_truth, b.outcome.ground_truth
    if not same_answer(*truths):
        return f"the ground truth {truths[0]!r:.80} in one and {truths[1]!r:.80} in the other"
    if a.videos and b.videos and a.videos != b.videos:
        return f"the video {a.videos[0]!r:.200} in one and {b.videos[0]!r:.200} in the other"
    return ""


# --- how many of the chosen questions there are


def measure(path: Path, stated: Mapping[str, Any], indices: Iterable[int], *, rows: int | None) -> Coverage:
    """What the file at `path` covers. It has records of `indices`.

    `stated` is the coverage in its meta file, {} where there is none. `rows` is the size of a published dataset, None
    where the dataset is not published. Without both, a result counts as whole; a cache may be of an unfinished run.
    """
    recorded = frozenset(indices)
    chosen = read_spans(stated.get("chosen"))
    items = stated.get("items")
    questions = items if type(items) is int and 0 <= items <= _MAX_QUESTIONS else None
    if chosen is not None:
        return Coverage(len(recorded), len(chosen - recorded), rows if questions is None else questions)
    if questions is not None:
        return Coverage(len(recorded), max(0, questions - len(recorded)), questions)
    if rows is not None:
        whole = frozenset(range(rows))
        return Coverage(len(recorded & whole), len(whole - recorded), rows)
    return Coverage(len(recorded), None if path.name.startswith("cache_") else 0)


def write_spans(indices: Collection[int]) -> list[list[int]]:
    """Indices as [first, last] of each range of consecutive ones. So a choice of thousands stays short."""
    spans: list[list[int]] = []
    for index in sorted(indices):
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return spans


def read_spans(value: object) -> frozenset[int] | None:
    """The indices that `write_spans` wrote; None for anything else."""
    spans = []
    for part in value if isinstance(value, list) else [None]:
        if not (isinstance(part, list) and [type(end) for end in part] == [int, int] and part[0] <= part[1]):
            return None
        spans.append(range(part[0], part[1] + 1))
    if sum(span.stop - span.start for span in spans) > _MAX_QUESTIONS:
        return None
    return frozenset(index for span in spans for index in span)
