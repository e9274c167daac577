"""Fetch the annotation files of the six datasets, their videos (--videos), the published results (--results) or the
weights of the model (--model), or list which videos are there (--check)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

from eva.dataset.catalog import Catalog, KnownDataset, RemoteFile, load_catalog
from eva.dataset.items import load_items, locate_videos
from eva.errors import EvaError
from eva.files import PROJECT
from eva.run.options import Options, index_set, positive
from eva.run.settings import choose_items
from eva.text import printable_lines


def main(argv: Sequence[str], catalog: Catalog | None = None, project: Path = PROJECT) -> int:
    """The exit code: 0 every file is there and right, 1 a file is not, 2 unusable arguments, 130 interrupted.

    The folders `data`, `results-12k` and `models` of `project` get the files.
    """
    catalog = catalog or load_catalog()
    args = parse_arguments(argv, catalog, project)
    from eva.dataset.videos import fetch_model  # noqa: PLC0415 - `--help` does not need the Hub's library

    code, ends = 0, []
    try:
        if args.model:
            code = 1
            with errors_printed():
                fetch_model(catalog.model, project / catalog.model.folder)
                print(f"the weights are in {project / catalog.model.folder}")
                code = 0
            return code
        for name in args.datasets:
            known, there = catalog.datasets[name], True
            if args.results:
                there = bring_file(known.result, project / "results-12k", args.source)
            elif not args.check:
                there = bring_file(known.annotations, args.output, args.source)
            code = max(code, not there)
            if args.check or (args.videos and there):
                worse, end = bring_videos(name, known, args)
                code = max(code, worse)
                ends.append(end)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    for end in ends:
        print(printable_lines([end]))
    return code


def parse_arguments(argv: Sequence[str], catalog: Catalog, project: Path) -> argparse.Namespace:
    """The parsed command line, with each dataset once. Exits with code 2 where it is unusable."""
    names = list(catalog.datasets)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit codes: 0 every file is there and right; 1 a file is not; 2 unusable arguments; 130 interrupted.",
    )
    add, what = parser.add_argument, parser.add_mutually_exclusive_group()
    add("datasets", nargs="*", metavar="DATASET", help=f"default: all of {', '.join(names)}")
    videos = "fetch the videos too, into DIR/DATASET (DIR: %(const)s)"
    what.add_argument("--videos", type=Path, nargs="?", const=project / "data" / "videos", metavar="DIR", help=videos)
    what.add_argument("--results", action="store_true", help="fetch the published result files, into results-12k")
    what.add_argument("--model", action="store_true", help="fetch the weights of the model, and nothing else")
    nothing = "fetch nothing; list which videos are there or missing"
    what.add_argument("--check", type=Path, metavar="VIDEO_ROOT", help=nothing)
    add("--sample", type=positive, metavar="N", help="only the videos of the first N questions")
    add("--shuffle", type=int, metavar="SEED", help="with --sample N: of the N questions that eval-eva.py draws")
    add("--ids", type=index_set, metavar="I,J-K", help="only the videos of the questions with these indices")
    add("--mirror", action="store_true", help="fetch videos from a mirror, if the dataset has one")
    add("--yes", action="store_true", help="agree to the terms of the videos without a question")
    add("--source", default="", metavar="URL", help="a mirror of the annotation or result files")
    add("--output", type=Path, default=project / "data", help="folder of the annotation files (%(default)s)")
    args = parser.parse_args(argv[1:])
    unknown = [name for name in args.datasets if name not in names]
    if unknown:
        parser.error(f"unknown dataset {', '.join(unknown)}; there are {', '.join(names)}")
    if args.videos and str(args.videos) in names:
        parser.error(f"--videos takes a folder: name the dataset first, as in  {args.videos} --videos")
    if args.check and not args.check.is_dir():
        parser.error(f"--check {args.check} is not a folder")
    if args.source and not args.source.startswith(("http://", "https://")):
        parser.error(f"--source {args.source} is not an http(s) URL")
    args.datasets = list(dict.fromkeys(args.datasets or names))
    return args


def bring_file(file: RemoteFile, folder: Path, source: str) -> bool:
    """Fetch and check a file. Gives whether it is there."""
    from eva.dataset.hub import fetch_file  # noqa: PLC0415 - as above

    with errors_printed():
        folder.mkdir(parents=True, exist_ok=True)
        fetched = fetch_file(file, folder, source)
        print(f"{folder / file.name}: {'fetched' if fetched else 'already there'}, checked")
        return True
    return False


def bring_videos(name: str, known: KnownDataset, args: argparse.Namespace) -> tuple[int, str]:
    """Fetch the videos of a dataset, or list them for --check. Gives the exit code and what is there, in a line."""
    from eva.dataset.videos import fetch_videos  # noqa: PLC0415 - as above

    root, annotations = args.check or args.videos / name, args.output / known.annotations.name
    if not annotations.is_file():
        return 2, f"{name}: {annotations} is missing; python data/fetch.py {name} fetches it"
    with errors_printed():
        chosen = Options(name, sample=args.sample, shuffle=args.shuffle, ids=args.ids)
        items = choose_items(load_items(annotations), chosen)
        if not args.check:
            print(f"== {name}")
            with errors_printed():
                fetch_videos(known, items, root, mirror=args.mirror, agrees=lambda: args.yes or agrees())
        places = locate_videos(items, root)
        missing = [str(place) for place in places.values() if isinstance(place, EvaError)]
        there = {annotated: place for annotated, place in places.items() if isinstance(place, Path)}
        others = [str(place) for annotated, place in there.items() if place.name != Path(annotated).name]
        for line in [f"other container: {place}" for place in others] + [f"missing: {why}" for why in missing]:
            if args.check:
                print(printable_lines([f"{name}: {line}"]))
        counts = f"{len(there) - len(others)} under their own name, {len(others)} in another container"
        return bool(missing), f"{name}: {len(places)} videos: {counts}, {len(missing)} missing"
    return 2, f"{name}: see above"


def agrees() -> bool:
    """Ask whether to fetch."""
    print("Fetch them? (y/N) ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@contextmanager
def errors_printed() -> Iterator[None]:
    """An error ends the block, and the next step follows."""
    try:
        yield
    except filelock.Timeout as error:
        print(f"another process is fetching: wait for it to end ({error.lock_file})", file=sys.stderr)
    except (EvaError, OSError) as error:
        print(printable_lines(str(error).split("\n")), file=sys.stderr)
