"""What may take how long: each limit on time and CPU, measured on a machine that does nothing else.

The tests hold none of them, for a loaded machine must not fail a test.

    python benchmarks/limits.py      prints a table, and exits with 1 if something is over its limit
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "helpers")]

from browser import CHROMIUM, chromium, opened  # noqa: E402
from cost import cpu_s_per_record, take_readings  # noqa: E402
from harness import ROOT, environment  # noqa: E402
from hostile_replies import FIVE_MB, HOSTILE, parsing_s  # noqa: E402
from many_samples import ALL_READ, KEYSTROKE, write_many  # noqa: E402
from page_runs import FIRST, make_run  # noqa: E402
from random_replies import REPLIES, a_reply  # noqa: E402
from tokenizer import build_tokenizer  # noqa: E402

SAMPLES = 1500
TYPED = ("w", "wo", "wor", "word 1", "word 10", "word 1089", "")


@dataclass(frozen=True)
class Measured:
    """One row of the table; `value` and `limit` have the same unit."""

    what: str
    value: float
    limit: float
    unit: str

    @property
    def row(self) -> str:
        verdict = "" if self.value <= self.limit else "**over**"
        return f"| {self.what} | {self.value:.1f} | {self.limit:g} | {self.unit} | {verdict} |"


def main() -> int:
    print("| what | measured | limit | unit | |", "|---|---|---|---|---|", sep="\n")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = build_tokenizer(folder / "tokenizer")
        for measured in (*replies(), *samples(folder, tokenizer), *pages(folder, tokenizer)):
            print(measured.row, flush=True)
            rows.append(measured)
    return int(any(measured.value > measured.limit for measured in rows))


def replies() -> Iterator[Measured]:
    worst = max(parsing_s(HOSTILE[name](FIVE_MB)) for name in HOSTILE)
    yield Measured("the slowest hostile reply of 5 MB, parsed", 1000 * worst, 1000, "ms of CPU")
    worst = max(parsing_s(a_reply(number)) for number in range(REPLIES))
    yield Measured(f"the slowest of {REPLIES:,} random replies, parsed", 1000 * worst, 1000, "ms of CPU")


def samples(folder: Path, tokenizer: Path) -> Iterator[Measured]:
    """The start, with its imports, is left out."""
    readings = take_readings(folder / "cost", tokenizer, SAMPLES)
    yield Measured("a sample without frames", 1000 * cpu_s_per_record(readings[0], readings[-1]), 15, "ms of CPU")


def pages(folder: Path, tokenizer: Path) -> Iterator[Measured]:
    if CHROMIUM is None:
        print("limits.py: no page is measured, for Chromium is not installed", file=sys.stderr)
        return
    run = make_run(folder / "run", tokenizer, FIRST)
    many, page_file = folder / "result_many.jsonl", folder / "report.html"
    write_many(run.result, many)
    command = [sys.executable, str(ROOT / "report.py"), str(many), "--frame-root", str(run.frames)]
    subprocess.run([*command, "-o", str(page_file)], check=True, env=environment(), stdout=subprocess.DEVNULL)
    with chromium() as browser:
        page = opened(browser, page_file).page
        page.wait_for_selector("#table tbody a")
        paint_ms = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime")
        yield Measured("first paint of a page of 10,900 samples", paint_ms, 2000, "ms")
        page.focus("#search")
        page.wait_for_function(ALL_READ, timeout=60_000)
        # The quickest of three of each: another process on the machine is not the page's doing.
        slowest_ms = max(min(page.evaluate(KEYSTROKE, text) for _ in range(3)) for text in TYPED)
        yield Measured("the slowest keystroke of a search in it", slowest_ms, 100, "ms")


if __name__ == "__main__":
    sys.exit(main())
