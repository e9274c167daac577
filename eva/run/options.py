"""The command line of a run: its flags, their defaults and their checks."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from eva.agents.choice import FRAME_TOKENS, NFRAMES
from eva.endpoint.completion import MAX_TOKENS, TEMPERATURE, Sampling
from eva.json_text import parse_json
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.video.choices import BACKENDS, FORMATS

# The environment variable that holds the key if no flag gives it.
API_KEY_VARIABLE = "EVA_API_KEY"
# Where frames go: of eval-eva.py, which writes them, and of report.py, which shows them.
FRAME_ROOT = Path("/tmp/eva-frames")  # noqa: S108

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


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Names the default of a flag, unless that is nothing or the help itself says it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if not action.default or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """An unusable flag gets one line, not the list of all flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (all flags: {self.prog} --help)\n")


def parse_options(argv: Sequence[str], defaults: Defaults) -> Options:
    """Read the flags. Exits with status 2 and one line if they are unusable."""
    parser = _Parser(
        usage="%(prog)s --dataset NAME [FLAG ...]",
        description="Evaluate EVA on a multiple-choice video dataset.",
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    _add_data_options(parser.add_argument_group("data"), defaults)
    _add_server_options(parser.add_argument_group("server"), defaults)
    _add_agent_options(parser.add_argument_group("agent"))
    _add_frame_options(parser.add_argument_group("frames"), defaults)
    _add_run_options(parser.add_argument_group("run"))
    flags = vars(parser.parse_args(argv))
    _check_modes(parser, flags)
    key = flags["api_key"] or os.environ.get(API_KEY_VARIABLE, "").strip() or defaults.api_key
    urls = [url for some in flags["base_url"] or [addresses(defaults.base_url)] for url in some]
    return Options(
        **{**flags, "base_url": tuple(dict.fromkeys(urls)), "api_key": key, "header": tuple(flags["header"])}
    )


def _add_data_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    names = ", ".join(defaults.datasets)
    add(
        "--dataset",
        required=True,
        metavar="NAME",
        help=f"one of {names}, or a name of your own with --jsonl and --video-root",
    )
    add("--jsonl", type=Path, metavar="FILE", help="annotation file (default: the dataset's)")
    add("--video-root", type=Path, metavar="DIR", help="folder of the videos (default: the dataset's)")
    add("--videos", type=Path, metavar="DIR", help="folder of the datasets: the videos are in DIR/NAME of the dataset")
    add("--sample", **_count(None), help="run the first N items")
    add("--shuffle", type=int, metavar="SEED", help="with --sample: run N random items, the same for the same seed")
    add("--ids", type=index_set, metavar="I,J-K", help="run the items with these indices, such as 3,17,40-60")
    add("--output-dir", type=Path, default=Path(), metavar="DIR", help="folder of cache and result")


def _add_server_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    several = "the /v1 address of a server; for several, repeat the flag, or use commas, or ports such as 8000-8007"
    add("--base-url", type=addresses, action="append", metavar="URL", help=f"{several} (default: {defaults.base_url})")
    add(
        "--api-key",
        metavar="KEY",
        help=f"the key of the server; other users can see a flag, but not the variable {API_KEY_VARIABLE}",
    )
    add("--model", metavar="NAME", help="name of the served model (default: the first in the list of the server)")
    tokenizer = "folder or Hub id of the tokenizer of the model; none: records hold the messages themselves"
    add("--tokenizer", default=defaults.tokenizer, metavar="DIR", help=tokenizer)
    ranks = "data-parallel ranks of each server, of which a sample keeps to one; auto: ask the server, 0: name none"
    add("--data-parallel-ranks", type=rank_count, default="auto", metavar="N", help=ranks)
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
    add("--temperature", type=temperature, default=TEMPERATURE, metavar="T", help="of each request; 0: greedy")
    add("--seed", type=seed, metavar="S", help="of each request; repeat k of --repeat has the seed S + k - 1")
    add("--max-turns", **_count(6), help="most replies per sample")
    add("-v", "--max-visual-tokens", **_count(12000), help="budget of one tool call, in visual tokens")
    add("--maxp", **_count(720, "P"), help="the number of lines to which the budget first cuts large frames")
    fallback = (
        "pass on four arguments of the model and clamp windows to the video (default); or pass on all and clamp nothing"
    )
    add("--fallback", action=argparse.BooleanOptionalAction, default=True, help=fallback)
    times = "label frames with the requested times, as published, or with the decoded times"
    add("--timestamps", choices=("requested", "actual"), default="requested", help=times)


def _add_frame_options(group: argparse._ArgumentGroup, defaults: Defaults) -> None:
    add = group.add_argument
    add("--frame-tool", type=Path, default=defaults.frame_tool, metavar="FILE", help="the command that cuts frames")
    root = "where frames go; the server must be allowed to read it"
    add("--frame-root", type=Path, default=defaults.frame_root, metavar="DIR", help=root)
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
    add("--repeat", **_count(None), help="run N times, each with a cache and a result of its own")
    add("--max-concurrent", **_count(30), help="samples at the same time")
    add("--grace", **_seconds(60), help="seconds for running samples after an interrupt")
    ray = "run the samples on the nodes of this Ray cluster (HOST:PORT; without ADDRESS: that of this machine)"
    add("--ray", nargs="?", const="auto", metavar="ADDRESS", help=ray)
    add("--check", action="store_true", help="check all that a run needs, play one question, and run nothing")
    add("--list", action="store_true", dest="list_all", help="with --check, name every video that cannot be shown")
    again = "run nothing: play the replies of this result file again, and compare what the loop makes of them"
    add("--replay", type=Path, metavar="RESULT", help=again)
    add("--replay-frames", action="store_true", help="with --replay, also cut the frames of each call")
    add("--json", type=Path, metavar="FILE", help="write the figures of the summary, or of --replay, to this file")
    add("--new-cache", action="store_true", help="delete the cache first")
    add("--retry-error", action="store_true", help="run failed samples again")
    add("--force", action="store_true", help="go on with a cache that was made with other settings")
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
