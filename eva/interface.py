"""The Python interface: a run of any thread and any loop, and its result (docs/python.md).

Nothing here prints, asks or catches signals. What a run says goes to the logger `eva`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from eva.protocol.stop_reasons import MODEL
from eva.records.outcome import Outcome
from eva.records.result_file import read_records
from eva.records.schema import Record
from eva.run.evaluate import Host
from eva.run.evaluate import evaluate as run
from eva.run.options import Options
from eva.run.settings import choose_dataset, known_datasets
from eva.scoring.compare import Comparison, compare
from eva.scoring.interval import Interval
from eva.scoring.published import load_published
from eva.scoring.result_file import Coverage, ResultFile, read_result
from eva.scoring.score import Score

Settings = ParamSpec("Settings")
Given = TypeVar("Given")


@dataclass(frozen=True)
class Result:
    """A result file, or of a run the part of it that the run was to ask. Records are read when they are asked for."""

    file: ResultFile

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def score(self) -> Score:
        """All figures."""
        return self.file.score

    @property
    def accuracy(self) -> float | None:
        """The share of right answers, from 0 to 1; None while questions have no record."""
        return self.score.accuracy

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the accuracy, clustered by video; None while partial, and of fewer than ten videos."""
        return self.score.interval_95

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The records, the last one of each index, in the order of the file. Raises ResultError."""
        found = {record.index: record for record in read_records(self.path)}
        return tuple(found[index] for index in found if index in self.file.samples)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The samples that failed by something else than the model: `failure` says by what."""
        return tuple(one for one in self.file.outcomes if one.failure not in ("", MODEL))

    def compare(self, other: Result) -> Comparison:
        """This result (a) and another one (b) of the same questions; differences are b minus a.

        Raises DifferentQuestionsError.
        """
        return compare(self.file, other.file)


def load_result(path: str | Path) -> Result:
    """The result file at `path`, of this harness or of the reference. Raises EvaError where it cannot be scored."""
    return Result(read_result(Path(path), load_published()).last())


def taking_settings(
    make: Callable[Settings, Options],
) -> Callable[[Callable[[Options], Given]], Callable[Settings, Given]]:
    """Makes of a function of `Options` one that takes the fields of `Options` as its arguments."""

    def decorate(call: Callable[[Options], Given]) -> Callable[Settings, Given]:
        @wraps(call)
        def function(*arguments: Settings.args, **settings: Settings.kwargs) -> Given:
            return call(make(*arguments, **settings))

        vars(function)["__signature__"] = inspect.signature(make)  # what `help` shows
        return function

    return decorate


@taking_settings(Options)
async def evaluate_async(options: Options) -> Result:
    """Ask the questions of a dataset that have no record yet; gives the result of those that were chosen.

    The arguments are the flags of `eval-eva.py` by their long names (`base_url`, `sample`, `output_dir`, ...), with
    the same defaults. Failed samples are in `Result.failures`. Raises EvaError, with the sentence that the command
    prints, where a run cannot start or cannot go on. Where it is cancelled, what finished is in cache and result.
    """
    return await _evaluate(options)


async def _evaluate(options: Options) -> Result:
    ended = await run(choose_dataset(options, known_datasets()), options, Host())
    whole = await asyncio.to_thread(load_result, ended.result)
    chosen = {item.index for item in ended.items}
    lines = [line for line in whole.file.lines if line.outcome.index in chosen]
    coverage = Coverage(len(lines), len(chosen) - len(lines), whole.file.coverage.questions)
    return Result(replace(whole.file, coverage=coverage, lines=lines))


@taking_settings(Options)
def evaluate(options: Options) -> Result:
    """`evaluate_async` for a thread that runs no event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_evaluate(options))
    raise RuntimeError("this thread runs an event loop, as a notebook does: use  await eva.evaluate_async(...)")
