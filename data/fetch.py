"""Fetch the annotation files of the six datasets, or list which of their videos are there (--check)."""

import argparse
import sys
from pathlib import Path

# A script finds modules beside itself only; the package `eva` is one folder up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eva.dataset.download import (
    Manifest,
    fetch_and_report,
    fetch_parser,
    load_manifest,
    parse_fetch_arguments,
)
from eva.dataset.items import load_items
from eva.dataset.locate import survey_videos
from eva.errors import EvaError

DATA = Path(__file__).resolve().parent


def main() -> int:
    """The exit code: 0 every file is there and right, 1 a file is not, 2 unusable arguments."""
    manifest = load_manifest(DATA / "manifest.json")
    parser = fetch_parser(__doc__ or "", manifest, DATA)
    parser.add_argument(
        "--check", type=Path, metavar="VIDEO_ROOT", help="fetch nothing; list which videos are there or missing"
    )
    args = parse_fetch_arguments(parser, manifest)
    if args.check is None:
        return fetch_and_report(args, manifest)
    if not args.check.is_dir():
        parser.error(f"--check {args.check} is not a folder")
    return check(args, manifest)


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
        print(error, file=sys.stderr)
        return 2
    for found in survey.other_container:
        print(f"{dataset}: other container: {found}")
    for problem in survey.missing:
        print(f"{dataset}: missing: {problem}")
    print(
        f"{dataset}: {survey.total} videos: {len(survey.exact)} under their own name, "
        f"{len(survey.other_container)} in another container, {len(survey.missing)} missing"
    )
    return 1 if survey.missing else 0


if __name__ == "__main__":
    sys.exit(main())
