"""`eval-eva.py`: evaluate an agent on a dataset, check what that needs, or play a result again.

The exit codes stand in eva/commands/run_flags.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from eva.commands.run_flags import RunCommand, parse_command
from eva.dataset.items import Item
from eva.errors import EvaError
from eva.files import WriteError, replace_text
from eva.protocol.stop_reasons import AGENT, INFRASTRUCTURE, SAMPLE
from eva.records.outcome import Outcome
from eva.run.check import FAILED, check_all, table
from eva.run.evaluate import CalledOffError, Ended, Host, evaluate
from eva.run.options import SettingsError
from eva.run.schedule import RunEndedError, RunInterruptedError
from eva.run.settings import Dataset, choose_dataset, choose_items, known_datasets, load_annotations
from eva.run.summary import summarize
from eva.text import folded, printable, printable_lines

log = logging.getLogger(__name__)

# The exit code of a finished run, if some of its samples must run again.
UNFINISHED = 3
GO_ON = "; to go on: the same command, without --new-cache"
# A signal that the event loop has not taken for so long waits behind code that blocks it.
PATIENCE_S = 2.0
BAR = "{desc} {n_fmt}/{total_fmt}{postfix} |{bar}| {elapsed}<{remaining}"
# A log file gets a line of the bar this often, in seconds.
LOG_EVERY_S = 30.0


def main(
    argv: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
    datasets: Mapping[str, Mapping[str, str]] | None = None,
) -> int:
    """The command `argv`, whose first word is its name; gives the exit code.

    `defaults` are settings in the place of the package's own, `datasets` the paths in the place of known_datasets().
    """
    datasets = known_datasets() if datasets is None else datasets
    name = Path(argv[0]).name
    # Of transformers only the tokenizer is used, and without torch it prints advice at its import.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    command = parse_command(name, argv[1:], defaults or {}, list(datasets))
    with logged_to_terminal(name):
        try:
            dataset = choose_dataset(command.options, datasets)
            if command.replay is not None:
                return asyncio.run(replay(command.replay, dataset, command))
            return asyncio.run(check(dataset, command) if command.check else run(dataset, command))
        except EvaError as error:
            message, code = printable_lines(str(error).split("\n")), 1 if isinstance(error, CalledOffError) else 2
            if isinstance(error, (RunInterruptedError, RunEndedError)):
                message += GO_ON
                code = 128 + error.number if isinstance(error, RunInterruptedError) else 1
                # All is saved, and the process ends: one more signal would only change its exit code.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
        except KeyboardInterrupt:
            message, code = f"interrupted{GO_ON}", 130
        except SystemExit as error:
            message = f"the agent called sys.exit({error.code!r:.40}), which ended the run"
            message, code = f"{message}{GO_ON}", 1
        print(f"{name}: {message}", file=sys.stderr)
        return code


class Terminal(Host):
    """The person at the terminal: is asked, sees a bar and the summary, and ends the run by Ctrl-C."""

    def __init__(self, command: RunCommand, json_file: Path | None) -> None:
        self._command, self._json_file = command, json_file

    def confirm(self, question: str) -> None:
        if self._command.yes:
            return
        print(f"{question} (y/N) ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.buffer.readline(80) if sys.stdin else b""
        if not answer:
            raise SettingsError(
                "--new-cache and --retry-error ask first, and standard input ends without an answer: add --yes"
            )
        if answer.strip().lower() not in {b"y", b"yes"}:
            raise CalledOffError("called off; nothing was changed")

    @contextmanager
    def running(
        self, items: Sequence[Item], before: Sequence[Outcome], end_run: Callable[[int], None]
    ) -> Iterator[Callable[[Outcome], None]]:
        """A bar, and signals are caught. They stay caught after the samples, so that none interrupts the merging of the
        records.

        Where an agent's code holds up the loop, the loop takes no signal: another one then breaks that code off.
        """
        loop, waiting = asyncio.get_running_loop(), list[float]()

        def end(number: int) -> None:
            waiting.clear()
            end_run(number)

        def catch(number: int, frame: object) -> None:
            if waiting and monotonic() - waiting[0] > PATIENCE_S:
                raise KeyboardInterrupt
            waiting.append(monotonic())
            if not loop.is_closed():
                loop.call_soon_threadsafe(end, number)

        with bar(self._command.options.dataset, len(items), before) as count:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, catch)
            yield count

    def end(self, ended: Ended) -> None:
        """Print the summary. Raises RunEndedError where the file of --json cannot be written."""
        try:
            lines = summarize(ended, self._json_file)
        except WriteError as error:
            raise RunEndedError(str(error)) from error
        if sys.stdout.isatty():
            columns = shutil.get_terminal_size().columns
            lines = [part for line in lines for part in folded(line, columns, "  ")]
        print(printable_lines(lines))


class LinesAboveBar(logging.Handler):
    """Writes each line of the logger `eva` to standard error, above the bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"{self.name}: {printable(record.getMessage(), limit=2000)}", file=sys.stderr)


@contextmanager
def logged_to_terminal(command: str) -> Iterator[None]:
    """In the block, the lines of the package go to standard error, with the command's name."""
    log, handler = logging.getLogger("eva"), LinesAboveBar()
    handler.name = command
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


@contextmanager
def bar(name: str, total: int, before: Sequence[Outcome]) -> Iterator[Callable[[Outcome], None]]:
    """The bar of a run of `total` questions, of which those of `before` have ended; it gives what counts one more."""
    tty, ended, right, failed = sys.stderr.isatty(), 0, 0, 0
    with tqdm(
        desc=printable(name), total=total, initial=len(before), bar_format=BAR, dynamic_ncols=True,
        mininterval=0 if tty else LOG_EVERY_S, maxinterval=LOG_EVERY_S,
    ) as shown:  # fmt: skip

        def note(outcome: Outcome) -> None:
            nonlocal ended, right, failed
            ended, right = ended + 1, right + outcome.correct
            failed += outcome.failure == INFRASTRUCTURE
            words = f"{right / ended:.1%} right".replace("%", " %") + (f", {failed} failed" if failed else "")
            shown.set_postfix_str(words, refresh=False)

        def count(outcome: Outcome) -> None:
            note(outcome)
            shown.update()

        for outcome in before:
            note(outcome)
        yield count


async def run(dataset: Dataset, command: RunCommand) -> int:
    """The run, or each run of --repeat; gives the exit code. Raises as evaluate."""
    codes, results = [], []
    for number in range(1, (command.repeat or 1) + 1):
        files, options, json_file = dataset, command.options, command.json
        if command.repeat is not None:
            files = replace(dataset, cache=numbered(dataset.cache, number), result=numbered(dataset.result, number))
            seed = None if options.seed is None else options.seed + number - 1
            options, json_file = replace(options, seed=seed), json_file and numbered(json_file, number)
            log.info("run %d of %d: %s", number, command.repeat, files.result)
        codes.append(exit_code(await evaluate(files, options, Terminal(command, json_file)), command.max_failed))
        results.append(shlex.quote(str(files.result)))
    if len(results) > 1:
        print(f"All repeats:  python accuracy.py --repeats {' '.join(results)}")
    return max(codes)


def numbered(path: Path, number: int) -> Path:
    """`result_x.jsonl` -> `result_x.1.jsonl`."""
    return path.with_suffix(f".{number}{path.suffix}")


def exit_code(ended: Ended, max_failed: int | None) -> int:
    """The exit code of a run that finished. Says which samples count as wrong although no model failed, and how to go
    on."""
    failed = sum(outcome.failure == INFRASTRUCTURE for outcome in ended.outcomes)
    others = sum(outcome.failure in (SAMPLE, AGENT) for outcome in ended.outcomes)
    if others:
        log.warning(
            "%d of %d samples could not be played (a video is missing or broken, or the agent failed) and count as "
            "wrong",
            others, len(ended.items),
        )  # fmt: skip
    if failed:
        log.warning(
            "%d of %d samples ended by failures of the infrastructure and count as wrong: the same command with "
            "--retry-error runs them again",
            failed, len(ended.items),
        )  # fmt: skip
    return UNFINISHED if failed or (max_failed is not None and others > max_failed) else 0


async def check(dataset: Dataset, command: RunCommand) -> int:
    """Print a table of all that can be found out before a run of hours; 0 if a run can start."""
    findings = await check_all(dataset, command.options)
    print(printable_lines(table(findings)))
    return int(any(finding.verdict == FAILED for finding in findings))


async def replay(result: Path, dataset: Dataset, command: RunCommand) -> int:
    """Play the replies of a result file again, without a server; 0 if its records are what the loop makes of them."""
    from eva.replay.command import replay_result  # noqa: PLC0415  a run does not need it

    items = choose_items(load_annotations(dataset.jsonl, command.options.dataset), command.options)
    summary = await replay_result(result, items, dataset, command.options, cut_frames=command.replay_frames)
    if command.json is not None:
        replace_text(command.json, json.dumps(summary.to_json(), indent=1) + "\n", "--json")
    print("\n".join(summary.lines()))
    return int(not summary.proved)
