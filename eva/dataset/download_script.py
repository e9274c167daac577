"""What data/fetch.py and results-12k/fetch.py have in common: their options, and the report of a run."""

import argparse
import logging
import sys
from pathlib import Path

from eva.dataset.download import FetchError, Manifest, fetch_all, parse_source


def fetch_parser(description: str, manifest: Manifest, folder: Path) -> argparse.ArgumentParser:
    """The options of a fetching command whose files belong into `folder`."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Exit codes: 0 everything asked for is there and right; 1 something is not; 2 unusable arguments.",
    )
    names = ", ".join(manifest.files)
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=f"default: all of {names}")
    parser.add_argument("--source", default=manifest.source, help="URL or folder of a mirror (%(default)s)")
    parser.add_argument("--output", type=Path, default=folder, help="where the files go (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there but wrong")
    parser.add_argument("--retries", type=int, default=4, help="tries after a failed first one (%(default)s)")
    return parser


def parse_fetch_arguments(parser: argparse.ArgumentParser, manifest: Manifest) -> argparse.Namespace:
    """The parsed command line with `datasets` filled in; leaves with exit code 2 on an unknown name."""
    args = parser.parse_args()
    unknown = [name for name in args.datasets if name not in manifest.files]
    if unknown:
        parser.error(f"unknown dataset {', '.join(unknown)}; there are {', '.join(manifest.files)}")
    if args.retries < 0:
        parser.error(f"--retries {args.retries} is negative")
    args.datasets = list(dict.fromkeys(args.datasets or manifest.files))
    return args


def fetch_and_report(args: argparse.Namespace, manifest: Manifest) -> int:
    """Fetches, prints one line per file, and returns the exit code."""
    logging.basicConfig(format="%(message)s")
    failed = 0
    try:
        source = parse_source(args.source, attempts=args.retries + 1)
    except FetchError as error:
        print(f"--source {error}", file=sys.stderr)
        return 2
    files = [manifest.files[name] for name in args.datasets]
    try:
        for outcome in fetch_all(files, source=source, folder=args.output, force=args.force):
            if isinstance(outcome, FetchError):
                failed += 1
                print(outcome, file=sys.stderr)
            else:
                print(f"{outcome.path}: {'fetched' if outcome.fresh else 'already there'}, checked")
    except (FetchError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    if failed:
        print(f"{failed} of {len(files)} files are not in place", file=sys.stderr)
    return 1 if failed else 0
