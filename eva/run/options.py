"""The command line of a run: its flags, their defaults and their checks."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eva.video.picture_files import FORMATS

# The environment variable that holds the key if no flag gives it.
API_KEY_VARIABLE = "EVA_API_KEY"
# Where frames go: of eval-eva.py, which writes them, and of report.py, which shows them.
FRAME_ROOT = Path("/tmp/eva-frames")  # noqa: S108


@dataclass(frozen=True)
class Defaults:
    """The settings at the top of eval-eva.py. A flag wins over each of them. The other defaults stand in the flags."""

    base_url: str
    api_key: str
    tokenizer: str
    frame_tool: Path
    frame_root: Path
    datasets: Sequence[str]


@dataclass(frozen=True)
class Options:
    """The values of the flags, by the names of the flags."""

    dataset: str
    jsonl: Path | None
    video_root: Path | None
    sample: int | None
    ids: frozenset[int] | None
    output_dir: Path
    base_url: tuple[str, ...] = field(repr=False)
    api_key: str = field(repr=False)
    model: str | None
    tokenizer: str
    request_timeout: float
    outage_timeout: float
    max_turns: int
    max_visual_tokens: int
    maxp: int
    fallback: bool
    timestamps: str
    frame_tool: Path
    frame_root: Path
    backend: str
    image_transport: str | None
    frame_workers: int | None
    frame_timeout: float
    frame_memory_mb: int
    frame_cache_gb: float | None
    frame_format: str
    max_concurrent: int
    grace: float
    ray: str | None
    json: Path | None
    check: bool
    new_cache: bool
    retry_error: bool
    force: bool
    yes: bool


def parse_options(argv: Sequence[str], defaults: Defaults) -> Options:
    """Read the flags. Exits with status 2 and a usage line if they are unusable."""
    parser = argparse.ArgumentParser(
        description="Evaluate EVA on a multiple-choice video dataset.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_data_options(parser.add_argument_group("data"), defaults)
    _add_server_options(parser.add_argument_group("server"), defaults)
    _add_agent_options(parser.add_argument_group("agent"))
    _add_frame_options(parser.add_argument_group("frames"), defaults)
    _add_run_options(parser.add_argument_group("run"))
    flags = vars(parser.parse_args(argv))
    key = flags["api_key"] or os.environ.get(API_KEY_VARIABLE, "").strip() or defaults.api_key
    urls = [url for text in flags["base_url"] or [defaults.base_url] for url in text.split(",") if url]
    return Options(**{**flags, "base_url": tuple(dict.fromkeys(urls)), "api_key": key})


def _add_data_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    group.add_argument(
        "--dataset",
        required=True,
        help=f"one of {', '.join(defaults.datasets)}, or a name of your own with --jsonl and --video-root",
    )
    group.add_argument("--jsonl", type=Path, help="annotation file (default: the dataset's)")
    group.add_argument("--video-root", type=Path, help="folder of the videos (default: the dataset's)")
    group.add_argument("--sample", type=positive, metavar="N", help="run the first N items")
    group.add_argument(
        "--ids", type=index_set, metavar="I,J-K", help="run the items with these indices, such as 3,17,40-60"
    )
    group.add_argument("--output-dir", type=Path, default=Path(), help="folder of cache and result")


def _add_server_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    group.add_argument(
        "--base-url",
        action="append",
        metavar="URL",
        help="the /v1 address of a server; for several servers, repeat the flag or separate the addresses by commas "
        f"(default: {defaults.base_url})",
    )
    group.add_argument(
        "--api-key",
        help=f"the key of the server; other users can see a flag, so the variable {API_KEY_VARIABLE} is safer",
    )
    group.add_argument("--model", help="name of the served model (default: the first in the list of the server)")
    group.add_argument("--tokenizer", default=defaults.tokenizer, help="folder or Hub id of the tokenizer of the model")
    group.add_argument(
        "--request-timeout", type=positive_seconds, default=600.0, metavar="S", help="seconds for one completion"
    )
    group.add_argument(
        "--outage-timeout",
        type=positive_seconds,
        default=1800.0,
        metavar="S",
        help="seconds without any server, or without a node that has the video of a sample, before the run gives up",
    )


def _add_agent_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-turns", type=positive, default=6, metavar="N", help="most replies per sample")
    group.add_argument(
        "-v",
        "--max-visual-tokens",
        type=positive,
        default=12000,
        metavar="N",
        help="budget of one tool call, in visual tokens",
    )
    group.add_argument(
        "--maxp",
        type=positive,
        default=720,
        metavar="P",
        help="the number of lines to which the budget first cuts large frames",
    )
    group.add_argument(
        "--fallback",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="pass on four arguments of the model, and clamp windows to the video; "
        "or pass on all arguments and clamp nothing",
    )
    group.add_argument(
        "--timestamps",
        choices=("requested", "actual"),
        default="requested",
        help="label frames with the requested times, as published, or with the decoded times",
    )


def _add_frame_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    group.add_argument("--frame-tool", type=Path, default=defaults.frame_tool, help="the command that cuts frames")
    group.add_argument(
        "--frame-root",
        type=Path,
        default=defaults.frame_root,
        help="where frames go; the server must be allowed to read it",
    )
    group.add_argument("--backend", choices=("auto", "av", "decord"), default="auto", help="decoder of the frame tool")
    group.add_argument(
        "--image-transport",
        choices=("file", "base64"),
        help="send addresses (file://) or the images themselves (default: file; with --ray, what the servers can open)",
    )
    group.add_argument(
        "--frame-workers",
        type=positive,
        metavar="N",
        help="calls of the frame tool at the same time (default: the cores)",
    )
    group.add_argument(
        "--frame-timeout",
        type=positive_seconds,
        default=600.0,
        metavar="S",
        help="seconds for one call of the frame tool",
    )
    group.add_argument(
        "--frame-memory-mb", type=positive, default=4096, metavar="MB", help="memory for one call of the frame tool"
    )
    group.add_argument(
        "--frame-cache-gb",
        type=positive_size,
        metavar="GB",
        help="size of the frame store above which frames are deleted, least recently used first "
        "(default: half of what is free on its disk at the start, frames of earlier runs included; at most 200)",
    )
    group.add_argument("--frame-format", choices=FORMATS, default="bmp", help="format of the frames; all are lossless")


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-concurrent", type=positive, default=30, metavar="N", help="samples at the same time")
    group.add_argument(
        "--grace",
        type=positive_seconds,
        default=60.0,
        metavar="S",
        help="seconds for running samples after an interrupt",
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="run the samples on the nodes of this Ray cluster (HOST:PORT; without ADDRESS: that of this machine)",
    )
    group.add_argument("--check", action="store_true", help="check questions, videos and servers, and run nothing")
    group.add_argument("--json", type=Path, metavar="FILE", help="write the figures of the summary to this file")
    group.add_argument("--new-cache", action="store_true", help="delete the cache first")
    group.add_argument("--retry-error", action="store_true", help="run failed samples again")
    group.add_argument("--force", action="store_true", help="go on with a cache that was made with other settings")
    group.add_argument(
        "--yes", action="store_true", help="answer the questions of --new-cache and --retry-error with yes"
    )


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def positive_seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def positive_size(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a size above 0")
    return value


def index_set(text: str) -> frozenset[int]:
    """`3,17,40-60` -> the indices."""
    indices: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part, re.ASCII)
        if match is None:
            raise argparse.ArgumentTypeError(f"{part!r} is neither an index nor a range such as 40-60")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > 1_000_000:
            raise argparse.ArgumentTypeError(f"the range {part!r} runs backwards or is too long")
        indices.update(range(first, last + 1))
    return frozenset(indices)
