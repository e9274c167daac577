"""The command line of a run: a flag for each setting, and what the command itself is to do."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from eva.agents.choice import FRAME_TOKENS, NFRAMES
from eva.option_words import in_full
from eva.run.options import (
    API_KEY_VARIABLE,
    MAX_TEMPERATURE,
    Options,
    SettingsError,
    addresses,
    flag,
    header_line,
    positive,
)
from eva.terminal import CommandParser

# The flags of the reference, which its argparse takes by their beginnings too. No flag of ours can spoil a beginning.
REFERENCE_FLAGS = (
    "--help", "--dataset", "--max-concurrent", "--new-cache", "--retry-error", "--sample", "--max-visual-tokens",
    "--maxp", "--max-turns", "--fallback", "--no-fallback", "--output-dir",
)  # fmt: skip


@dataclass(frozen=True)
class RunCommand:
    """A command line: the settings of the run, and what else the command is to do."""

    options: Options
    repeat: int | None
    json: Path | None
    check: bool
    list_all: bool
    replay: Path | None
    replay_frames: bool
    yes: bool


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


def parse_command(name: str, argv: Sequence[str], defaults: Mapping[str, Any], datasets: Sequence[str]) -> RunCommand:
    """Read the flags of the command `name`. Exits with status 2 and one line if they are unusable."""
    parser = make_parser(defaults, datasets, name)
    flags = vars(parser.parse_args(in_full(argv, REFERENCE_FLAGS)))
    _check_modes(parser, flags)
    own = {one.name: flags.pop(one.name) for one in fields(RunCommand) if one.name != "options"}
    # A key in the environment, which other users cannot see, wins over the one in the script.
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    flags["api_key"] = flags["api_key"] or key or defaults.get("api_key")
    if flags["base_url"] is None:
        del flags["base_url"]
    else:
        flags["base_url"] = tuple(url for some in flags["base_url"] for url in some)
    try:
        return RunCommand(Options(**{**defaults, **flags}), **own)
    except SettingsError as error:
        parser.error(str(error))


def make_parser(defaults: Mapping[str, Any], datasets: Sequence[str], name: str = "eval-eva.py") -> CommandParser:
    """The flags in their groups. `docs/flags.md` has the same texts: tests/helpers/flag_tables.py writes them there.

    `defaults` are the settings at the top of eval-eva.py; `datasets` are the names that it knows.
    """
    parser = CommandParser(
        prog=name,
        usage="%(prog)s --dataset NAME [FLAG ...]",
        description="Evaluate EVA on a multiple-choice video dataset.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    _add_data_options(parser.add_argument_group("questions and videos"), datasets)
    _add_server_options(parser.add_argument_group("server"), defaults)
    _add_agent_options(parser.add_argument_group("agent"))
    _add_frame_options(parser.add_argument_group("frames", "see docs/frames.md"))
    _add_run_options(parser.add_argument_group("run"))
    parser.set_defaults(**{name: value for name, value in defaults.items() if name not in ("base_url", "api_key")})
    return parser


def _add_data_options(group: argparse._ArgumentGroup, datasets: Sequence[str]) -> None:
    add = group.add_argument
    names = f"one of {', '.join(datasets)}, or any other name with --jsonl and --video-root"
    add("--dataset", required=True, metavar="NAME", help=names)
    add("--jsonl", **flag("jsonl", "FILE"), help="annotation file (default: the dataset's)")
    add("--video-root", **flag("video_root", "DIR"), help="folder of the videos (default: the dataset's)")
    videos = (
        "folder above the video folders: the videos are in DIR/NAME of the dataset, where data/fetch.py --videos DIR "
        "puts them; --video-root wins (default: data/videos)"
    )
    add("--videos", **flag("videos", "DIR"), help=videos)
    add("--sample", **flag("sample", "N"), help="run the first N questions (default: all)")
    shuffle = (
        "with --sample N: run N random questions instead; the same seed always gives the same ones, and a larger N "
        "holds those of a smaller N"
    )
    add("--shuffle", **flag("shuffle", "SEED"), help=shuffle)
    ids = "run the questions with these indices, such as 3,17,40-60 (default: all)"
    add("--ids", **flag("ids", "I,J-K"), help=ids)
    add("--output-dir", **flag("output_dir", "DIR"), help="folder of cache and result")


def _add_server_options(group: argparse._ArgumentGroup, defaults: Mapping[str, Any]) -> None:
    add = group.add_argument
    several = (
        "the address of a server, with /v1; for several, repeat the flag, use commas, or give a range of ports: "
        f"http://host:8000-8007/v1 (default: {', '.join(addresses(defaults.get('base_url', Options.base_url)))})"
    )
    add("--base-url", type=addresses, action="append", metavar="URL", help=several)
    key = (
        f"the key of the server; where no flag gives it, the variable {API_KEY_VARIABLE} does, and other users cannot "
        "see that one (default: API_KEY at the top of eval-eva.py)"
    )
    add("--api-key", metavar="KEY", help=key)
    add("--model", metavar="NAME", help="name of the served model (default: the first that the server lists)")
    tokenizer = "folder or Hub id of the tokenizer of the model; none: records hold the messages themselves"
    add("--tokenizer", **flag("tokenizer", "DIR"), help=tokenizer)
    ranks = (
        "data-parallel ranks of each server, of which a sample keeps to one (docs/servers.md); auto: ask the server, "
        "0: leave the choice to the server"
    )
    add("--data-parallel-ranks", **{**flag("data_parallel_ranks", "N"), "default": "auto"}, help=ranks)
    add("--max-tokens", **flag("max_tokens", "N"), help="most tokens of one reply")
    extra = "fields that are added to the body of each request; null takes a field out"
    add("--extra-body", **flag("extra_body", "JSON"), help=extra)
    header = "a header of each request, 'NAME: VALUE'; repeat the flag for several"
    add("--header", type=header_line, action="append", default=[], metavar="HEADER", help=header)
    add(
        "--request-timeout",
        **flag("request_timeout", "S"),
        help="seconds for one completion, from the connection to the last byte",
    )
    outage = (
        "seconds without any server after which the run ends; with --ray also without any node, or without a node that "
        "has the video of a sample"
    )
    add("--outage-timeout", **flag("outage_timeout", "S"), help=outage)


def _add_agent_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    agent = "eva, uniform, blind, tools, hermes, or path/to/mine.py:MyAgent (docs/agents.md)"
    add("--agent", **flag("agent", "AGENT"), help=agent)
    add("--nframes", **flag("nframes", "N"), help=f"of uniform: frames of the video (default: {NFRAMES})")
    frame_tokens = f"of uniform: visual tokens to which a frame is scaled down (default: {FRAME_TOKENS})"
    add("--frame-tokens", **flag("frame_tokens", "T"), help=frame_tokens)
    match = "of uniform: for each question as many visual tokens as the run of this result spent on it"
    add("--match", **flag("match", "RESULT"), help=match)
    images = "of tools: where frames go, in the tool message or in a user message after it (default: tool)"
    add("--tool-images", **flag("tool_images"), help=images)
    side = "width and height in pixels that one visual token covers (28: Qwen2.5-VL, 32: Qwen3-VL)"
    add("--pixels-per-token", **flag("pixels_per_token", "P"), help=side)
    degree = f"temperature of each request, up to {MAX_TEMPERATURE:g}; 0: greedy"
    add("--temperature", **flag("temperature", "T"), help=degree)
    draws = "seed of each request; repeat k of --repeat has the seed S + k - 1 (default: none is sent)"
    add("--seed", **flag("seed", "S"), help=draws)
    add("--max-turns", **flag("max_turns", "N"), help="most replies per sample")
    add("-v", "--max-visual-tokens", **flag("max_visual_tokens", "N"), help="budget of one tool call, in visual tokens")
    add("--maxp", **flag("maxp", "P"), help="the number of lines to which the budget first cuts large frames")
    fallback = (
        "pass on four arguments of the model and clamp windows to the video, as published; with --no-fallback pass on "
        "all and clamp nothing"
    )
    # Until 3.12, argparse writes a default that it is given here into the help.
    add("--fallback", action=argparse.BooleanOptionalAction, help=fallback)
    group.set_defaults(fallback=True)
    times = "label frames with the requested times, as published, or with the decoded times"
    add("--timestamps", **flag("timestamps"), help=times)


def _add_frame_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--frame-tool", **flag("frame_tool", "FILE"), help="the command that cuts frames")
    root = "where frames go; the server must be allowed to read it"
    add("--frame-root", **flag("frame_root", "DIR"), help=root)
    backend = "decoder: auto takes PyAV, then decord where PyAV fails; decord gives the frames of the reference"
    add("--backend", **flag("backend"), help=backend)
    transport = (
        "send addresses (file://) or the images themselves (default: file; with --ray, what the servers can open)"
    )
    add("--image-transport", **flag("image_transport"), help=transport)
    workers = "processes of the frame tool (default: the processors that this job may use, by affinity and cgroup)"
    add("--frame-workers", **flag("frame_workers", "N"), help=workers)
    timeout = (
        "seconds for one call of the frame tool, or for the first look at a video; then its process is ended and "
        "replaced"
    )
    add("--frame-timeout", **flag("frame_timeout", "S"), help=timeout)
    memory = "memory for the same; decord holds all frames of a call at once, and may need more"
    add("--frame-memory-mb", **flag("frame_memory_mb", "MB"), help=memory)
    cache = (
        "size of the frame store above which frames are deleted, least recently used first; without the flag, the run "
        "says which size it takes (default: half of what is free on its disk at the start, frames of earlier runs "
        "included; at most 200)"
    )
    add("--frame-cache-gb", **flag("frame_cache_gb", "GB"), help=cache)
    format_ = (
        "format of the frames in the store, both lossless; bmp is faster, png is half as large, which may pay with "
        "--image-transport base64"
    )
    add("--frame-format", **flag("frame_format"), help=format_)


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    repeat = "run N times, each with a cache and a result of its own, such as result_lvbench.1.jsonl (docs/report.md)"
    add("--repeat", type=positive, metavar="N", help=repeat)
    add("--max-concurrent", **flag("max_concurrent", "N"), help="samples at the same time")
    add("--grace", **flag("grace", "S"), help="seconds for running samples after an interrupt")
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
