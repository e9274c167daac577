"""Fetch the annotation files of the six datasets, their videos (--videos) or the weights of the model (--model), or
list which videos are there (--check)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eva.dataset.download import (
    Manifest,
    fetch_and_report,
    fetch_parser,
    load_manifest,
    parse_fetch_arguments,
)
from eva.dataset.items import Item, load_items
from eva.dataset.locate import Survey, survey_videos
from eva.dataset.videos_catalog import Catalog, VideoSet, load_catalog
from eva.errors import EvaError
from eva.files import PROJECT
from eva.text import printable_lines

DATA = PROJECT / "data"
INTERRUPTED = 130


def main(argv: Sequence[str], data: Path = DATA) -> int:
    """The exit code: 0 every file is there and right, 1 a file is not, 2 unusable arguments, 130 interrupted.

    `data` holds `manifest.json` and `videos.json`, and gets the files.
    """
    manifest = load_manifest(data / "manifest.json")
    args = parse_arguments(argv, manifest, data)
    try:
        if args.model:
            return fetch_weights(data)
        if args.videos:
            return fetch_all_videos(args, manifest, load_catalog(data / "videos.json"))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return fetch_and_report(args, manifest) if args.check is None else check(args, manifest)


def parse_arguments(argv: Sequence[str], manifest: Manifest, data: Path) -> argparse.Namespace:
    """The parsed command line. Exits with code 2 where it is unusable."""
    parser = fetch_parser(__doc__ or "", manifest, data)
    what = parser.add_mutually_exclusive_group()
    parent = "fetch the videos too, into DIR/DATASET (DIR: %(const)s)"
    what.add_argument("--videos", type=Path, nargs="?", const=data / "videos", metavar="DIR", help=parent)
    what.add_argument("--model", action="store_true", help="fetch the weights of the model, and nothing else")
    what.add_argument(
        "--check", type=Path, metavar="VIDEO_ROOT", help="fetch nothing; list which videos are there or missing"
    )
    parser.add_argument("--mirror", action="store_true", help="fetch videos from a mirror, if the dataset has one")
    parser.add_argument("--keep-archives", action="store_true", help="do not delete the archives of videos")
    parser.add_argument("--yes", action="store_true", help="agree to the terms of the videos without a question")
    args = parse_fetch_arguments(argv, parser, manifest)
    if args.videos and str(args.videos) in manifest.files:
        parser.error(f"--videos takes a folder: name the dataset first, as in  {args.videos} --videos")
    if args.check and not args.check.is_dir():
        parser.error(f"--check {args.check} is not a folder")
    return args


def fetch_weights(data: Path) -> int:
    """Fetch the weights into the folder that eval-eva.py takes by default."""
    from eva.dataset.fetch_videos import fetch_model  # noqa: PLC0415 - no other command needs the Hub

    model = load_catalog(data / "videos.json").model
    with errors_printed():
        fetch_model(model, data.parent / model.folder)
        print(f"the weights are in {data.parent / model.folder}")
        return 0
    return 1


def fetch_all_videos(args: argparse.Namespace, manifest: Manifest, catalog: Catalog) -> int:
    """Fetch annotations and videos of each dataset, print a table, and return the exit code."""
    rows, complete = [("dataset", "wanted", "there", "missing", "from")], True
    for name in args.datasets:
        print(f"== {name}")
        code = fetch_and_report(argparse.Namespace(**{**vars(args), "datasets": [name]}), manifest)
        if code in (2, INTERRUPTED):
            return code
        if code:
            rows.append((name, "-", "-", "-", "no annotation file"))
            complete = False
            continue
        items = load_items(args.output / manifest.files[name].name)
        survey, origin = fetch_dataset(items, catalog.datasets[name], args.videos / name, args)
        missing = len(survey.missing)
        rows.append((name, str(survey.total), str(survey.total - missing), str(missing), origin))
        complete = complete and not missing
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    if not complete:
        print(f"python data/fetch.py DATASET --check {args.videos}/DATASET  lists what is missing", file=sys.stderr)
    return 0 if complete else 1


def fetch_dataset(items: Sequence[Item], videos: VideoSet, root: Path, args: argparse.Namespace) -> tuple[Survey, str]:
    """Fetch the missing videos. Gives what is there, and where it came from."""
    from eva.dataset.fetch_videos import Choices, fetch_videos, source_of  # noqa: PLC0415 - as above

    with errors_printed():
        fetch_videos(videos, items, root, Choices(args.mirror, args.keep_archives, args.yes, agrees))
    survey, origin = survey_videos(items, root), "-"
    with errors_printed():
        origin = source_of(videos, root)
    return survey, origin


@contextmanager
def errors_printed() -> Iterator[None]:
    """An error ends the block, and the next step follows."""
    try:
        yield
    except (EvaError, OSError) as error:
        print(printable_lines(str(error).split("\n")), file=sys.stderr)


def agrees() -> bool:
    """Ask whether to fetch."""
    print("Fetch them? (y/N) ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def check(args: argparse.Namespace, manifest: Manifest) -> int:
    """Print which videos of each dataset are there, and return the highest exit code of a dataset."""
    return max(check_dataset(name, args.output / manifest.files[name].name, args.check) for name in args.datasets)


def check_dataset(dataset: str, annotations: Path, video_root: Path) -> int:
    """Print the counts and each video that is missing or has another container, and return the exit code."""
    if not annotations.is_file():
        print(f"{annotations} is missing; python data/fetch.py {dataset} fetches it", file=sys.stderr)
        return 2
    try:
        survey = survey_videos(load_items(annotations), video_root)
    except EvaError as error:
        print(printable_lines(str(error).split("\n")), file=sys.stderr)
        return 2
    lines = [
        *(f"{dataset}: other container: {found}" for found in survey.other_container),
        *(f"{dataset}: missing: {problem}" for problem in survey.missing),
        f"{dataset}: {survey.total} videos: {len(survey.exact)} under their own name, "
        f"{len(survey.other_container)} in another container, {len(survey.missing)} missing",
    ]
    print(printable_lines(lines))
    return 1 if survey.missing else 0
