"""Fetch the published result files, to compare a result with them. Their figures are in published.json."""

import sys
from pathlib import Path

# A script finds modules beside itself only; the package `eva` is one folder up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eva.dataset.download import fetch_and_report, fetch_parser, load_manifest, parse_fetch_arguments

RESULTS = Path(__file__).resolve().parent


def main() -> int:
    """The exit code: 0 every file is there and right, 1 a file is not, 2 unusable arguments."""
    manifest = load_manifest(RESULTS / "manifest.json")
    args = parse_fetch_arguments(sys.argv, fetch_parser(__doc__ or "", manifest, RESULTS), manifest)
    return fetch_and_report(args, manifest)


if __name__ == "__main__":
    sys.exit(main())
