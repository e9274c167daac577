"""The command line of a run: its flags, their defaults and their checks."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva.agents.choice import FRAME_TOKENS, NFRAMES
from eva.endpoint.completion import MAX_TOKENS
from eva.json_text import parse_json
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.video.choices import BACKENDS, FORMATS

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
    max_tokens: int
    extra_body: Mapping[str, Any]
    header: tuple[tuple[str, str], ...] = field(repr=False)
    agent: str
    nframes: int | None
    frame_tokens: int | None
    match: Path | None
    tool_images: str | None
    pixels_per_token: int
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


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of a flag, unless that is nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def parse_options(argv: Sequence[str], defaults: Defaults) -> Options:
    """Read the flags. Exits with status 2 and a usage line if they are unusable."""
    parser = argparse.ArgumentParser(
        description="Evaluate EVA on a multiple-choice video dataset.",
        formatter_class=_HelpFormatter,
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
    return Options(
        **{**flags, "base_url": tuple(dict.fromkeys(urls)), "api_key": key, "header": tuple(flags["header"])}
    )


def _add_data_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    names = ", ".join(defaults.datasets)
    add("--dataset", required=True, help=f"one of {names}, or a name of your own with --jsonl and --video-root")
    add("--jsonl", type=Path, help="annotation file (default: the dataset's)")
    add("--video-root", type=Path, help="folder of the videos (default: the dataset's)")
    add("--sample", **_count(None), help="run the first N items")
    add("--ids", type=index_set, metavar="I,J-K", help="run the items with these indices, such as 3,17,40-60")
    add("--output-dir", type=Path, default=Path(), help="folder of cache and result")


def _add_server_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    several = "the /v1 address of a server; for several servers, repeat the flag or separate addresses by commas"
    add("--base-url", action="append", metavar="URL", help=f"{several} (default: {defaults.base_url})")
    add("--api-key", help=f"the key of the server; other users can see a flag, but not the variable {API_KEY_VARIABLE}")
    add("--model", help="name of the served model (default: the first in the list of the server)")
    add(
        "--tokenizer",
        default=defaults.tokenizer,
        help="folder or Hub id of the tokenizer of the model; none: records hold the messages themselves",
    )
    add("--max-tokens", **_count(MAX_TOKENS), help="most tokens of one reply")
    extra = "fields that are added to the body of each request; null takes a field out"
    add("--extra-body", type=json_fields, default={}, metavar="JSON", help=extra)
    header = "a header of each request, 'NAME: VALUE'; repeat the flag for several"
    add("--header", type=header_line, action="append", default=[], metavar="HEADER", help=header)
    add("--request-timeout", **_seconds(600), help="seconds for one completion")
    outage = "seconds without any server, or without a node that has the video of a sample, before the run gives up"
    add("--outage-timeout", **_seconds(1800), help=outage)


def _add_agent_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    agent = "eva, uniform, blind, tools, hermes, or path/to/mine.py:MyAgent (docs/agents.md)"
    add("--agent", default="eva", metavar="AGENT", help=agent)
    add("--nframes", **_count(None), help=f"of uniform: frames of the video (default: {NFRAMES})")
    frame_tokens = f"of uniform: visual tokens to which a frame is scaled down (default: {FRAME_TOKENS})"
    add("--frame-tokens", **_count(None, "T"), help=frame_tokens)
    match = "of uniform: for each question as many visual tokens as this result's run spent on it"
    add("--match", type=Path, metavar="RESULT", help=match)
    images = "of tools: where frames go, in the tool message (default) or in a user message after it"
    add("--tool-images", choices=("tool", "user"), help=images)
    side = "width and height in pixels that one visual token covers (28: Qwen2.5-VL, 32: Qwen3-VL)"
    add("--pixels-per-token", **_count(PIXELS_PER_TOKEN_SIDE, "P"), help=side)
    add("--max-turns", **_count(6), help="most replies per sample")
    add("-v", "--max-visual-tokens", **_count(12000), help="budget of one tool call, in visual tokens")
    add("--maxp", **_count(720, "P"), help="the number of lines to which the budget first cuts large frames")
    fallback = "pass on four arguments of the model and clamp windows to the video; or pass on all and clamp nothing"
    add("--fallback", action=argparse.BooleanOptionalAction, default=True, help=fallback)
    times = "label frames with the requested times, as published, or with the decoded times"
    add("--timestamps", choices=("requested", "actual"), default="requested", help=times)


def _add_frame_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    add("--frame-tool", type=Path, default=defaults.frame_tool, help="the command that cuts frames")
    root = "where frames go; the server must be allowed to read it"
    add("--frame-root", type=Path, default=defaults.frame_root, help=root)
    add("--backend", choices=BACKENDS, default="auto", help="decoder of the frame tool")
    transport = "send addresses (file://) or the images (default: file; with --ray, what the servers can open)"
    add("--image-transport", choices=("file", "base64"), help=transport)
    add("--frame-workers", **_count(None), help="calls of the frame tool at the same time (default: the cores)")
    add("--frame-timeout", **_seconds(600), help="seconds for one call of the frame tool")
    add("--frame-memory-mb", **_count(4096, "MB"), help="memory for one call of the frame tool")
    cache = (
        "size of the frame store above which frames are deleted, least recently used first (default: half of what is "
        "free on its disk at the start, frames of earlier runs included; at most 200)"
    )
    add("--frame-cache-gb", type=positive_number, metavar="GB", help=cache)
    add("--frame-format", choices=FORMATS, default="bmp", help="format of the frames; both are lossless")


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--max-concurrent", **_count(30), help="samples at the same time")
    add("--grace", **_seconds(60), help="seconds for running samples after an interrupt")
    ray = "run the samples on the nodes of this Ray cluster (HOST:PORT; without ADDRESS: that of this machine)"
    add("--ray", nargs="?", const="auto", metavar="ADDRESS", help=ray)
    add("--check", action="store_true", help="check all that a run needs, play one question, and run nothing")
    add("--json", type=Path, metavar="FILE", help="write the figures of the summary to this file")
    add("--new-cache", action="store_true", help="delete the cache first")
    add("--retry-error", action="store_true", help="run failed samples again")
    add("--force", action="store_true", help="go on with a cache that was made with other settings")
    add("--yes", action="store_true", help="answer the questions of --new-cache and --retry-error with yes")


def _count(default: int | None, metavar: str = "N") -> dict[str, Any]:
    return {"type": positive, "default": default, "metavar": metavar}


def _seconds(default: float) -> dict[str, Any]:
    return {"type": positive_number, "default": float(default), "metavar": "S"}


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def json_fields(text: str) -> dict[str, Any]:
    """A JSON object, without the fields that the run decides."""
    fields = parse_json(text)
    if not isinstance(fields, dict):
        raise argparse.ArgumentTypeError(f"{text} is not a JSON object")
    own = fields.keys() & {"messages", "model", "stream", "n", "max_tokens", "max_completion_tokens"}
    if own:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(own))} cannot be set here")
    return fields


def header_line(text: str) -> tuple[str, str]:
    """`NAME: VALUE` -> both."""
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", name) or not re.fullmatch(r"[\t -~]*", value):
        raise argparse.ArgumentTypeError("a header has the form 'NAME: VALUE'")
    return name, value.strip()


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
