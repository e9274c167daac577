"""Brings the published result files, to compare one's own against (published.json holds their figures)."""

import sys
from pathlib import Path

# A script finds modules beside itself; the package `eva` lies one folder up, wherever the command is started.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eva.dataset.download import fetch_and_report, fetch_parser, load_manifest, parse_fetch_arguments

RESULTS = Path(__file__).resolve().parent


def main() -> int:
    """Exit code 0 when every file is there and right, 1 when one is not, 2 on unusable arguments."""
    manifest = load_manifest(RESULTS / "manifest.json")
    args = parse_fetch_arguments(fetch_parser(__doc__ or "", manifest, RESULTS), manifest)
    return fetch_and_report(args, manifest)


if __name__ == "__main__":
    sys.exit(main())
