"""The command line of a run: a flag for each setting, and what the command itself is to do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from eva.run.options import (
    API_KEY_VARIABLE,
    DataSettings,
    FrameSettings,
    Options,
    PlaySettings,
    RunSettings,
    ServerSettings,
    SettingsError,
    add_flags,
    count,
    positive,
    setting,
)
from eva.terminal import CommandParser


@dataclass(frozen=True)
class RunCommand:
    """A command line: the settings of the run, and what else the command is to do."""

    options: Options
    repeat: int | None = setting(
        None, positive, "N", "run N times, with result_NAME.1.jsonl and so on (docs/report.md)"
    )
    check: bool = setting(False, meaning="check all that a run needs, play one question, and run nothing")
    replay: Path | None = setting(
        None, Path, "RESULT", "run nothing: play the replies of this result again, and compare (docs/replay.md)"
    )
    replay_frames: bool = setting(False, meaning="with --replay, also cut the frames of each call")
    json: Path | None = setting(
        None, Path, "FILE", "write the figures of the summary, or of --replay, to this file as JSON"
    )
    max_failed: int | None = setting(
        None, count, "N", "exit with 3 if more than N samples could not be played, such as those of missing videos"
    )
    yes: bool = setting(False, meaning="answer the questions of --new-cache and --retry-error with yes")


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
  3    the run finished, but the infrastructure failed for some samples, or more than --max-failed could not be
       played: run them again with --retry-error
  130  interrupted by Ctrl-C (SIGINT); the same command goes on
  143  ended by SIGTERM; the same command goes on
"""


def parse_command(name: str, argv: Sequence[str], defaults: Mapping[str, Any], datasets: Sequence[str]) -> RunCommand:
    """Read the flags of the command `name`. Exits with status 2 and one line if they are unusable."""
    parser = make_parser(defaults, datasets, name)
    flags = vars(parser.parse_args(argv))
    # The key in the environment, which other users cannot see, wins over the one in the script.
    flags["api_key"] = flags["api_key"] or os.environ.get(API_KEY_VARIABLE, "").strip() or None
    drops = flags["new_cache"] or flags["retry_error"]
    if flags["check"] and flags["ray"]:
        parser.error("--check looks at one machine: leave --ray out, and run it on every node")
    if flags["repeat"] and drops and not flags["yes"]:
        parser.error("--new-cache and --retry-error would ask before each run of --repeat: add --yes")
    if flags["replay_frames"] and not flags["replay"]:
        parser.error("--replay-frames needs --replay")
    if flags["replay"] and (drops or flags["check"] or flags["ray"]):
        parser.error("--replay runs nothing: leave --check, --ray, --new-cache and --retry-error out")
    own = {one.name: flags.pop(one.name) for one in fields(RunCommand) if one.name != "options"}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return RunCommand(Options(**{**defaults, **given}), **own)
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
    data = parser.add_argument_group("questions and videos")
    names = f"one of {', '.join(datasets)}, or any other name with --jsonl and --video-root"
    data.add_argument("--dataset", required=True, metavar="NAME", help=names)
    add_flags(data, DataSettings)
    add_flags(parser.add_argument_group("server"), ServerSettings)
    add_flags(parser.add_argument_group("agent"), PlaySettings)
    add_flags(parser.add_argument_group("frames", "see docs/frames.md"), FrameSettings)
    run = parser.add_argument_group("run")
    add_flags(run, RunSettings)
    add_flags(run, RunCommand)
    parser.set_defaults(**{name: value for name, value in defaults.items() if name not in ("base_url", "api_key")})
    return parser
