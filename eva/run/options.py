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
from eva.endpoint.completion import MAX_TOKENS, TEMPERATURE, Sampling
from eva.json_text import parse_json
from eva.option_words import in_full
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.terminal import CommandParser
from eva.video.choices import BACKENDS, FORMATS

# The environment variable that holds the key if no flag gives it.
API_KEY_VARIABLE = "EVA_API_KEY"
# Where frames go: of eval-eva.py, which writes them, and of report.py, which shows them.
FRAME_ROOT = Path("/tmp/eva-frames")  # noqa: S108

# The flags of the reference, which its argparse takes by their beginnings too. No flag of ours can spoil a beginning.
REFERENCE_FLAGS = (
    "--help", "--dataset", "--max-concurrent", "--new-cache", "--retry-error", "--sample", "--max-visual-tokens",
    "--maxp", "--max-turns", "--fallback", "--no-fallback", "--output-dir",
)  # fmt: skip

# As OpenAI's interface has it; and what every server takes, with room for the repeats.
MAX_TEMPERATURE, MAX_SEED = 2.0, 2**31 - 10**6


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
    videos: Path | None
    sample: int | None
    shuffle: int | None
    ids: frozenset[int] | None
    output_dir: Path
    base_url: tuple[str, ...] = field(repr=False)
    api_key: str = field(repr=False)
    model: str | None
    tokenizer: str
    data_parallel_ranks: int | None
    request_timeout: float
    outage_timeout: float
    temperature: float
    seed: int | None
    repeat: int | None
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
    list_all: bool
    replay: Path | None
    replay_frames: bool
    new_cache: bool
    retry_error: bool
    force: bool
    same_weights: bool
    yes: bool

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens, self.temperature, self.seed, self.extra_body)


_EPILOG = """\
examples:
  all questions of a dataset:   eval-eva.py --dataset videomme --base-url http://127.0.0.1:8000/v1
  what a run needs, before it:  eval-eva.py --dataset videomme --check
  the first 20 questions:       eval-eva.py --dataset videomme --sample 20
  failed samples once more:     eval-eva.py --dataset videomme --retry-error
  questions of your own:        eval-eva.py --dataset mine --jsonl mine.jsonl --video-root videos

exit codes:
  0    the run finished
  1    the run was called off, or failed on the way; the same command goes on
  2    a flag, file or setting cannot be used; nothing has run
  3    the run finished, but the infrastructure failed for some samples: run them again with --retry-error
  130  interrupted by Ctrl-C (SIGINT); the same command goes on
  143  ended by SIGTERM; the same command goes on
"""


def parse_options(argv: Sequence[str], defaults: Defaults) -> Options:
    """Read the flags. Exits with status 2 and one line if they are unusable."""
    parser = make_parser(defaults)
    flags = vars(parser.parse_args(in_full(argv, REFERENCE_FLAGS)))
    _check_modes(parser, flags)
    key = flags["api_key"] or os.environ.get(API_KEY_VARIABLE, "").strip() or defaults.api_key
    urls = [url for some in flags["base_url"] or [addresses(defaults.base_url)] for url in some]
    return Options(
        **{**flags, "base_url": tuple(dict.fromkeys(urls)), "api_key": key, "header": tuple(flags["header"])}
    )


def make_parser(defaults: Defaults) -> CommandParser:
    """The flags in their groups. `docs/flags.md` has the same texts: tests/helpers/flag_tables.py writes them there."""
    parser = CommandParser(
        usage="%(prog)s --dataset NAME [FLAG ...]",
        description="Evaluate EVA on a multiple-choice video dataset.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    _add_data_options(parser.add_argument_group("questions and videos"), defaults)
    _add_server_options(parser.add_argument_group("server"), defaults)
    _add_agent_options(parser.add_argument_group("agent"))
    _add_frame_options(parser.add_argument_group("frames", "see docs/frames.md"), defaults)
    _add_run_options(parser.add_argument_group("run"))
    return parser


def _add_data_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    names = f"one of {', '.join(defaults.datasets)}, or any other name with --jsonl and --video-root"
    add("--dataset", required=True, metavar="NAME", help=names)
    add("--jsonl", type=Path, metavar="FILE", help="annotation file (default: the dataset's)")
    add("--video-root", type=Path, metavar="DIR", help="folder of the videos (default: the dataset's)")
    videos = (
        "folder above the video folders: the videos are in DIR/NAME of the dataset, where data/fetch.py --videos DIR "
        "puts them; --video-root wins (default: data/videos)"
    )
    add("--videos", type=Path, metavar="DIR", help=videos)
    add("--sample", **_count(None), help="run the first N questions (default: all)")
    shuffle = (
        "with --sample N: run N random questions instead; the same seed always gives the same ones, and a larger N "
        "holds those of a smaller N"
    )
    add("--shuffle", type=int, metavar="SEED", help=shuffle)
    ids = "run the questions with these indices, such as 3,17,40-60 (default: all)"
    add("--ids", type=index_set, metavar="I,J-K", help=ids)
    add("--output-dir", type=Path, default=Path(), metavar="DIR", help="folder of cache and result")


def _add_server_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    several = (
        "the address of a server, with /v1; for several, repeat the flag, use commas, or give a range of ports: "
        f"http://host:8000-8007/v1 (default: {defaults.base_url})"
    )
    add("--base-url", type=addresses, action="append", metavar="URL", help=several)
    key = (
        f"the key of the server; where no flag gives it, the variable {API_KEY_VARIABLE} does, and other users cannot "
        "see that one (default: API_KEY at the top of eval-eva.py)"
    )
    add("--api-key", metavar="KEY", help=key)
    add("--model", metavar="NAME", help="name of the served model (default: the first that the server lists)")
    tokenizer = "folder or Hub id of the tokenizer of the model; none: records hold the messages themselves"
    add("--tokenizer", default=defaults.tokenizer, metavar="DIR", help=tokenizer)
    ranks = (
        "data-parallel ranks of each server, of which a sample keeps to one (docs/servers.md); auto: ask the server, "
        "0: leave the choice to the server"
    )
    add("--data-parallel-ranks", type=rank_count, default="auto", metavar="N", help=ranks)
    add("--max-tokens", **_count(MAX_TOKENS), help="most tokens of one reply")
    extra = "fields that are added to the body of each request; null takes a field out"
    add("--extra-body", type=json_fields, default={}, metavar="JSON", help=extra)
    header = "a header of each request, 'NAME: VALUE'; repeat the flag for several"
    add("--header", type=header_line, action="append", default=[], metavar="HEADER", help=header)
    add("--request-timeout", **_seconds(600), help="seconds for one completion, from the connection to the last byte")
    outage = (
        "seconds without any server after which the run ends; with --ray also without any node, or without a node that "
        "has the video of a sample"
    )
    add("--outage-timeout", **_seconds(1800), help=outage)


def _add_agent_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    agent = "eva, uniform, blind, tools, hermes, or path/to/mine.py:MyAgent (docs/agents.md)"
    add("--agent", default="eva", metavar="AGENT", help=agent)
    add("--nframes", **_count(None), help=f"of uniform: frames of the video (default: {NFRAMES})")
    frame_tokens = f"of uniform: visual tokens to which a frame is scaled down (default: {FRAME_TOKENS})"
    add("--frame-tokens", **_count(None, "T"), help=frame_tokens)
    match = "of uniform: for each question as many visual tokens as the run of this result spent on it"
    add("--match", type=Path, metavar="RESULT", help=match)
    images = "of tools: where frames go, in the tool message or in a user message after it (default: tool)"
    add("--tool-images", choices=("tool", "user"), help=images)
    side = "width and height in pixels that one visual token covers (28: Qwen2.5-VL, 32: Qwen3-VL)"
    add("--pixels-per-token", **_count(PIXELS_PER_TOKEN_SIDE, "P"), help=side)
    degree = f"temperature of each request, up to {MAX_TEMPERATURE:g}; 0: greedy"
    add("--temperature", type=temperature, default=TEMPERATURE, metavar="T", help=degree)
    draws = "seed of each request; repeat k of --repeat has the seed S + k - 1 (default: none is sent)"
    add("--seed", type=seed, metavar="S", help=draws)
    add("--max-turns", **_count(6), help="most replies per sample")
    add("-v", "--max-visual-tokens", **_count(12000), help="budget of one tool call, in visual tokens")
    add("--maxp", **_count(720, "P"), help="the number of lines to which the budget first cuts large frames")
    fallback = (
        "pass on four arguments of the model and clamp windows to the video, as published; with --no-fallback pass on "
        "all and clamp nothing"
    )
    # Until 3.12, argparse writes a default that it is given here into the help.
    add("--fallback", action=argparse.BooleanOptionalAction, help=fallback)
    group.set_defaults(fallback=True)
    times = "label frames with the requested times, as published, or with the decoded times"
    add("--timestamps", choices=("requested", "actual"), default="requested", help=times)


def _add_frame_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    add("--frame-tool", type=Path, default=defaults.frame_tool, metavar="FILE", help="the command that cuts frames")
    root = "where frames go; the server must be allowed to read it"
    add("--frame-root", type=Path, default=defaults.frame_root, metavar="DIR", help=root)
    backend = "decoder: auto takes PyAV, then decord where PyAV fails; decord gives the frames of the reference"
    add("--backend", choices=BACKENDS, default="auto", help=backend)
    transport = (
        "send addresses (file://) or the images themselves (default: file; with --ray, what the servers can open)"
    )
    add("--image-transport", choices=("file", "base64"), help=transport)
    workers = "processes of the frame tool (default: the processors that this job may use, by affinity and cgroup)"
    add("--frame-workers", **_count(None), help=workers)
    timeout = (
        "seconds for one call of the frame tool, or for the first look at a video; then its process is ended and "
        "replaced"
    )
    add("--frame-timeout", **_seconds(600), help=timeout)
    memory = "memory for the same; decord holds all frames of a call at once, and may need more"
    add("--frame-memory-mb", **_count(4096, "MB"), help=memory)
    cache = (
        "size of the frame store above which frames are deleted, least recently used first; without the flag, the run "
        "says which size it takes (default: half of what is free on its disk at the start, frames of earlier runs "
        "included; at most 200)"
    )
    add("--frame-cache-gb", type=positive_number, metavar="GB", help=cache)
    format_ = (
        "format of the frames in the store, both lossless; bmp is faster, png is half as large, which may pay with "
        "--image-transport base64"
    )
    add("--frame-format", choices=FORMATS, default="bmp", help=format_)


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    repeat = "run N times, each with a cache and a result of its own, such as result_lvbench.1.jsonl (docs/report.md)"
    add("--repeat", **_count(None), help=repeat)
    add("--max-concurrent", **_count(30), help="samples at the same time")
    add("--grace", **_seconds(60), help="seconds for running samples after an interrupt")
    ray = (
        "run the samples on the nodes of this Ray cluster, HOST:PORT; without ADDRESS on that of this machine "
        "(docs/cluster.md)"
    )
    add("--ray", nargs="?", const="auto", metavar="ADDRESS", help=ray)
    add("--check", action="store_true", help="check all that a run needs, play one question, and run nothing")
    whole = "with --check, name every video that cannot be shown, not only the first ten"
    add("--list", action="store_true", dest="list_all", help=whole)
    again = (
        "run nothing: play the replies of this result file again, and compare what the loop makes of them "
        "(docs/replay.md)"
    )
    add("--replay", type=Path, metavar="RESULT", help=again)
    add("--replay-frames", action="store_true", help="with --replay, also cut the frames of each call")
    figures = "write the figures of the summary, or of --replay, to this file as JSON"
    add("--json", type=Path, metavar="FILE", help=figures)
    add("--new-cache", action="store_true", help="delete the cache first")
    add("--retry-error", action="store_true", help="run failed samples again")
    add("--force", action="store_true", help="go on with a cache that was made with other settings")
    moved = "the weights of the servers are the same and those of the cache, although their paths are not"
    add("--same-weights", action="store_true", help=moved)
    add("--yes", action="store_true", help="answer the questions of --new-cache and --retry-error with yes")


def _check_modes(parser: argparse.ArgumentParser, flags: dict[str, Any]) -> None:
    if flags["list_all"] and not flags["check"]:
        parser.error("--list needs --check")
    if flags["check"] and flags["ray"]:
        parser.error("--check looks at one machine: leave --ray out, and run it on every node")
    if flags["replay_frames"] and not flags["replay"]:
        parser.error("--replay-frames needs --replay")
    others = [name for name in ("check", "ray", "new_cache", "retry_error") if flags[name]]
    if flags["replay"] and others:
        parser.error(f"--replay runs nothing: leave --{others[0].replace('_', '-')} out")


def _count(default: int | None, metavar: str = "N") -> dict[str, Any]:
    return {"type": positive, "default": default, "metavar": metavar}


def _seconds(default: float) -> dict[str, Any]:
    return {"type": positive_number, "default": default, "metavar": "S"}


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def addresses(text: str) -> list[str]:
    """The addresses between commas; `http://host:8000-8007/v1` stands for eight."""
    found = [address for part in text.split(",") if part for address in _expand_ports(part)]
    if not found:
        raise argparse.ArgumentTypeError("there is no address")
    return found


def _expand_ports(address: str) -> list[str]:
    # What follows the ports tells them from a password: `http://me:12-34@host/v1`.
    match = re.fullmatch(r"([^/]*//[^/?#]*:)(\d{1,5})-(\d{1,5})((?:[/?#].*)?)", address, re.ASCII)
    if match is None:
        return [address]
    first, last = int(match[2]), int(match[3])
    if not first <= last <= 65535:
        raise argparse.ArgumentTypeError(f"the ports {first}-{last} run backwards, or are beyond 65535")
    return [f"{match[1]}{port}{match[4]}" for port in range(first, last + 1)]


def rank_count(text: str) -> int | None:
    """A number of data-parallel ranks; None for `auto`."""
    return None if text == "auto" else int(text) if text == "0" else positive(text)


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def temperature(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_TEMPERATURE:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {MAX_TEMPERATURE:g}")
    return value


def seed(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {MAX_SEED}")
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
