"""Make a page that shows what the agent saw: of results, of two results compared, or of a run that is going on.

Exit codes: 0 the page is written; 2 unusable arguments or input, and nothing is written; 130 interrupted.
"""

from __future__ import annotations

import math
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from eva.errors import EvaError
from eva.files import replacing
from eva.records.meta import meta_path
from eva.records.result_file import read_scored
from eva.report.collect import (
    STATUSES,
    Collected,
    Source,
    collect,
    differences,
    page_data,
    read_sources,
    reading_order,
)
from eva.report.comparison import comparison_figures
from eva.report.live import LiveServer
from eva.report.page import END, PER_BLOCK, block, compact, packed_block, render_beginning
from eva.report.thumbnails import FrameRoots, Thumbnails
from eva.run.options import Options, SettingsError, index_set
from eva.scoring.published import Published, load_published
from eva.terminal import CommandParser
from eva.text import printable

OUTPUT = Path("report.html")
PORT = 8321


def main(argv: Sequence[str]) -> int:
    """The command `argv`, whose first word is its name; gives the exit code."""
    options = parse_arguments(argv)
    # Pillow warns of large pictures. eva/report/thumbnails.py checks the size before it decodes one.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        if not options.live:
            return write(options)
        with live_server(options) as server:
            print(f"{server.url} shows {options.output_dir}; Ctrl-C ends this", flush=True)
            server.serve_forever(poll_interval=0.2)
        return 0
    except EvaError as error:
        print(f"{Path(argv[0]).name}: {printable(str(error), limit=2000)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def make_parser(name: str = "report.py") -> CommandParser:
    parser = CommandParser(
        prog=name,
        usage="%(prog)s RESULT [RESULT ...] [FLAG ...]\n       %(prog)s --live --output-dir DIR [FLAG ...]",
        description="Show what the agent saw, as a page that opens from the disk.",
    )
    add = parser.add_argument
    add("files", type=Path, nargs="*", metavar="RESULT", help="one result file, or several")
    add("-o", "--output", type=Path, default=OUTPUT, metavar="FILE", help="the page")
    add("--against", type=Path, metavar="RESULT", help="compare with this older result of the same questions")
    name = "what a result is called; once for each, that of --against first (default: the dataset, or the folder)"
    add("--name", action="append", default=[], metavar="NAME", help=name)
    only = f"show only samples that are {', '.join(STATUSES)}; can be given more than once (default: all)"
    add("--only", action="append", choices=STATUSES, metavar="STATUS", help=only)
    add("--ids", type=index_set, metavar="I,J-K", help="show only samples with these indices (default: all)")
    add("--thumbnails-mb", type=float, default=40.0, metavar="MB", help="most megabytes of thumbnails in the page")
    root = "a folder of frames, beside those that the meta files name; can be given more than once"
    add("--frame-root", type=Path, action="append", metavar="DIR", help=f"{root} (default: {Options.frame_root})")
    add("--live", action="store_true", help="serve the page of a run that goes on, to this machine alone")
    add("--output-dir", type=Path, metavar="DIR", help="with --live: the folder of a run, or of folders of runs")
    add("--port", type=int, default=PORT, metavar="PORT", help="with --live; 0 takes any free port")
    return parser


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = make_parser(Path(argv[0]).name)
    options = parser.parse_args(argv[1:])
    options.frame_root = options.frame_root or [Options.frame_root]
    results = len(options.files) + bool(options.against)
    chosen = results or options.only or options.name or options.ids is not None
    complaints = {
        "--live takes --output-dir, and no result files, --against, --only, --ids or --name": (
            options.live and (chosen or not options.output_dir)
        ),
        "name a result file, or --live --output-dir DIR": not options.live and not options.files,
        "--output-dir belongs to --live; the page goes where -o says": not options.live and options.output_dir,
        "--against compares one result with one other": options.against and len(options.files) > 1,
        "give --name once for each result, or not at all": options.name and len(options.name) != results,
        f"--thumbnails-mb: {options.thumbnails_mb} is not a size": not 0 <= options.thumbnails_mb < math.inf,
    }
    for message in (message for message, wrong in complaints.items() if wrong):
        parser.error(message)
    return options


# --- a page on disk


def write(options: Namespace) -> int:
    """Make the page and say what is in it. Raises EvaError; then nothing is written."""
    from eva.report.charts import charts  # noqa: PLC0415  takes a second to import

    paths = [*([options.against] if options.against else []), *options.files]
    check_output(options.output, paths)
    published = load_published()
    sources = read_sources(paths, published, names=options.name, compared=bool(options.against))
    runs = collect_all(sources, published, options)
    roots = FrameRoots.at(*options.frame_root).with_metas(source.meta for source in sources)
    thumbnails = Thumbnails(roots, int(options.thumbnails_mb * 1e6), options.frame_root[0].absolute() / "thumbnails")
    frames = reading_order(runs, compared=bool(options.against))
    for _ in tqdm(thumbnails.make(frames), "Thumbnails", len(frames), disable=None, leave=False):
        pass
    title = "EVA: " + ", ".join(printable(run.run.name, limit=40) for run in runs[:6])
    parts = [
        render_beginning(title, charts([run.run for run in runs]), data_of(runs, options, thumbnails.line), live=False),
        *(block for run in runs for block in run.blocks),
        packed_block("frames", [compact(thumbnails.places).encode()]),
    ]
    for number, first in enumerate(range(0, len(thumbnails.pictures), PER_BLOCK)):
        parts.append(block(f"pictures-{number}", compact(thumbnails.pictures[first : first + PER_BLOCK])))
    with replacing(options.output, "--output") as file:
        file.writelines(part.encode() for part in (*parts, END))
    samples, size_mb = sum(len(run.shown) for run in runs), options.output.stat().st_size / 1e6
    print(f"{printable(str(options.output))}: {samples} samples, {size_mb:.1f} MB. {thumbnails.line}")
    return 0


def check_output(output: Path, inputs: Sequence[Path]) -> None:
    """The page must not overwrite an input."""
    for path in inputs:
        for taken in (path, meta_path(path)):
            if output.exists() and taken.exists() and output.samefile(taken):
                raise SettingsError(f"{output} is an input of this report: name another file with -o")
    if not output.parent.is_dir():
        raise SettingsError(f"there is no folder {output.parent} for the page")


def collect_all(sources: Sequence[Source], published: Mapping[str, Published], options: Namespace) -> list[Collected]:
    """Read every run. The last one first: where two are compared, it says which samples the other one shows."""
    ids, statuses = options.ids, options.only or STATUSES
    runs: list[Collected] = []
    for number, source in reversed(list(enumerate(sources))):
        records = tqdm(read_scored(source.path), source.key, unit=" samples", disable=None, leave=False)
        runs.insert(0, collect(source, number, records, published, ids=ids, statuses=statuses))
        if options.against:
            ids, statuses = {one.outcome.index for one in runs[0].shown}, STATUSES
    if not any(run.shown for run in runs):
        raise SettingsError("no sample is as --only and --ids say")
    return runs


def data_of(runs: Sequence[Collected], options: Namespace, legend: str) -> dict[str, object]:
    """The JSON blocks of the page's beginning, by name."""
    asked = [*(f"--only {one}" for one in options.only or ()), *(["--ids"] if options.ids is not None else [])]
    shown, known = sum(len(run.shown) for run in runs), sum(len(run.file.lines) for run in runs)
    left_out = f"{shown:,} of {known:,} samples ({', '.join(asked)}). The figures and charts are of all."
    settings = {
        "live": 0,
        "against": bool(options.against),
        "status": datetime.now(UTC).strftime("Made %Y-%m-%d %H:%M UTC"),
        "legend": legend,
        "chosen": left_out if asked else "",
    }
    data = page_data(runs, settings)
    if options.against:
        before, now = runs
        data["differs"] = differences(before, now)
        names = printable(before.run.name), printable(now.run.name)
        data["paired"] = comparison_figures(before.file, now.file, names)
    return data


# --- a page of a run that is going on


def live_server(options: Namespace) -> LiveServer:
    """The server of the page, which does not serve yet. Raises EvaError."""
    if options.output_dir.exists() and not options.output_dir.is_dir():
        raise SettingsError(f"{options.output_dir} is not a folder: --output-dir names that of the run")
    try:
        return LiveServer(options.output_dir, FrameRoots.at(*options.frame_root), load_published(), options.port)
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"port {options.port} of 127.0.0.1 cannot be served ({error}): choose another with --port"
        ) from error
