"""The settings of a run: each is a keyword of `eva.evaluate` and a flag of `eval-eva.py`. Defaults stand here."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from eva.agent.interface import MAX_TURNS, Agent
from eva.agent.tool_call import CallSettings
from eva.agents.choice import FRAME_TOKENS, NFRAMES
from eva.endpoint.completion import MAX_TOKENS, TEMPERATURE, Sampling
from eva.errors import EvaError
from eva.files import PROJECT
from eva.json_text import parse_json
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.video import DECODERS
from eva.video.picture import FORMATS

# The environment variable that holds the key if nothing else gives it, and the key of servers that want none.
API_KEY_VARIABLE, NO_API_KEY = "EVA_API_KEY", "EMPTY"
# This project's own frame tool.
FRAME_TOOL = PROJECT / "select_frame_fallback.py"
FRAME_ROOT = Path("/tmp/eva-frames")  # noqa: S108


class SettingsError(EvaError):
    """Settings with which no run can start."""


def setting(
    default: Any,
    /,
    read: Callable[[Any], Any] | None = None,
    metavar: str | None = None,
    meaning: str = "",
    *,
    choices: Sequence[str] = (),
    secret: bool = False,
    **flag: Any,
) -> Any:
    """A field with its default, and what its flag means. `flag` is for argparse's `add_argument`.

    `read` makes the value of the text of a flag, or of a value that it made before. It raises ValueError or
    ArgumentTypeError.
    """
    shown = {"choices": choices} if choices else {"type": read, "metavar": metavar}
    metadata = {"read": read, "choices": choices, "flag": {"default": default, **shown, "help": meaning, **flag}}
    return field(default=default, metadata=metadata, repr=not secret)


# --- what flags say as text


def _number(kind: type, accepts: Callable[[Any], bool], words: str) -> Callable[[Any], Any]:
    """Reads a number of this kind that is accepted."""

    def read(value: Any) -> Any:
        number = kind(value)
        if not accepts(number) or (isinstance(value, float) and value != number):
            raise argparse.ArgumentTypeError(f"{value} is not {words}")
        return number

    read.__name__ = kind.__name__  # argparse says it of what is no number
    return read


positive = _number(int, lambda number: number > 0, "a whole number above 0")
count = _number(int, lambda number: number >= 0, "a whole number from 0 on")
positive_number = _number(float, lambda number: 0 < number < inf, "a number above 0")
temperature = _number(float, lambda number: 0 <= number < inf, "a number from 0 on")


def addresses(urls: str | Collection[str]) -> tuple[str, ...]:
    """The addresses, or those between commas; `http://host:8000-8007/v1` stands for eight. Each comes once."""
    found: list[str] = []
    for address in ",".join([urls] if isinstance(urls, str) else urls).split(","):
        # What follows the ports tells them from a password: `http://me:12-34@host/v1`.
        match = re.fullmatch(r"([^/]*//[^/?#]*:)(\d{1,5})-(\d{1,5})((?:[/?#].*)?)", address, re.ASCII)
        if match and not int(match[2]) <= int(match[3]) <= 65535:
            raise argparse.ArgumentTypeError(f"the ports {match[2]}-{match[3]} run backwards, or are beyond 65535")
        if match:
            found += [f"{match[1]}{port}{match[4]}" for port in range(int(match[2]), int(match[3]) + 1)]
        elif address:
            found.append(address)
    if not found:
        raise argparse.ArgumentTypeError("there is no address")
    return tuple(dict.fromkeys(found))


def rank_count(value: str | int) -> int | None:
    """A number of data-parallel ranks; None for `auto`."""
    return None if value == "auto" else count(value)


def json_fields(value: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """A JSON object, without the fields that the run decides."""
    found = parse_json(value) if isinstance(value, str) else value
    own = {"messages", "model", "stream", "n", "max_tokens", "max_completion_tokens"}
    if not isinstance(found, Mapping) or found.keys() & own:
        raise argparse.ArgumentTypeError(f"{value} is not a JSON object without {', '.join(sorted(own))}")
    return found


def header_lines(headers: Mapping[str, str] | Sequence[str | tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Names and values, checked; a text is `NAME: VALUE`."""
    given = headers.items() if isinstance(headers, Mapping) else headers
    lines = [one if isinstance(one, str) else ": ".join(one) for one in given]
    if not all(re.fullmatch(r"[A-Za-z0-9-]+:[\t -~]*", line) for line in lines):
        raise argparse.ArgumentTypeError("a header has the form 'NAME: VALUE'")
    return tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))


def agent(value: Any) -> Any:
    """A name, a class as text, or the agent itself."""
    if not isinstance(value, (str, Agent)):
        raise argparse.ArgumentTypeError(f"{value!r:.80} is neither a text nor an agent")
    return value


def agent_arguments(given: Mapping[str, Any] | Sequence[str]) -> Mapping[str, Any]:
    """`NAME=VALUE` -> the arguments by name."""
    if isinstance(given, Mapping):
        return given
    arguments: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise argparse.ArgumentTypeError(f"{one!r:.80} has not the form NAME=VALUE")
        try:
            arguments[name] = parse_json(value)
        except ValueError:
            arguments[name] = value
    return arguments


def index_set(value: str | Collection[int]) -> frozenset[int]:
    """`3,17,40-60` -> the indices."""
    if not isinstance(value, str):
        return frozenset(map(int, value))
    indices: set[int] = set()
    for part in value.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part, re.ASCII)
        if match is None:
            raise argparse.ArgumentTypeError(f"{part!r} is neither an index nor a range such as 40-60")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > 1_000_000:
            raise argparse.ArgumentTypeError(f"the range {part!r} runs backwards or is too long")
        indices.update(range(first, last + 1))
    return frozenset(indices)


# --- the settings, by what they are about


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which questions are asked, and where questions, videos and results are."""

    dataset: str = field(kw_only=False)
    jsonl: Path | None = setting(None, Path, "FILE", "annotation file (default: the dataset's)")
    video_root: Path | None = setting(None, Path, "DIR", "folder of the videos (default: the dataset's)")
    videos: Path | None = setting(
        None, Path, "DIR", "folder above those of the datasets, as of data/fetch.py --videos (default: data/videos)"
    )
    sample: int | None = setting(None, positive, "N", "run the first N questions (default: all)")
    shuffle: int | None = setting(
        None, int, "SEED", "with --sample: random questions; a larger sample of a seed holds the smaller ones"
    )
    ids: Collection[int] | None = setting(
        None, index_set, "I,J-K", "only these indices, such as 3,17,40-60 (default: all)"
    )
    output_dir: Path = setting(Path(), Path, "DIR", "folder of cache and result")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The servers, and what each request asks of them. Times are in seconds."""

    base_url: str | Collection[str] = setting(
        ("http://127.0.0.1:8000/v1",), addresses, "URL",
        "the address of a server, with /v1; for several, repeat the flag, use commas, or give a range of ports: "
        "http://host:8000-8007/v1 (default: http://127.0.0.1:8000/v1)",
        secret=True, default=None, action="extend",
    )  # fmt: skip
    api_key: str | None = setting(
        None, None, "KEY", f"key of the server (default: the variable {API_KEY_VARIABLE}, else API_KEY in eval-eva.py)",
        secret=True,
    )  # fmt: skip
    model: str | None = setting(None, None, "NAME", "the served model (default: the first that the server lists)")
    tokenizer: str = setting(
        "models/EVA", str, "DIR", "folder or Hub id of the tokenizer; none: records hold the messages themselves"
    )
    data_parallel_ranks: int | None = setting(
        None, rank_count, "N", "data-parallel ranks of each server (docs/servers.md); auto: ask it, 0: let it choose",
        default="auto",
    )  # fmt: skip
    max_tokens: int | None = setting(
        None, positive, "N", f"most tokens of one reply (default: the agent's own, {MAX_TOKENS} of eva)"
    )
    extra_body: Mapping[str, Any] | None = setting(
        None, json_fields, "JSON", "fields that are added to the body of each request; null takes a field out"
    )
    header: Mapping[str, str] | Sequence[tuple[str, str]] = setting(
        (), header_lines, "HEADER", "a header of each request, 'NAME: VALUE'; repeat the flag for several",
        secret=True, type=str, action="append", default=[],
    )  # fmt: skip
    request_timeout: float = setting(600.0, positive_number, "S", "seconds for one completion, to its last byte")
    outage_timeout: float = setting(1800.0, positive_number, "S", "seconds without any server or node that end the run")
    temperature: float = setting(TEMPERATURE, temperature, "T", "of each request; 0: greedy")
    seed: int | None = setting(None, count, "S", "of each request; repeat k has S + k - 1 (default: none is sent)")

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens or MAX_TOKENS, self.temperature, self.seed, self.extra_body or {})

    @property
    def key(self) -> str:
        """The key, of the environment where no setting gives it."""
        return self.api_key or os.environ.get(API_KEY_VARIABLE, "").strip() or NO_API_KEY


@dataclass(frozen=True, kw_only=True)
class PlaySettings:
    """Who plays."""

    agent: str | Agent = setting(
        "eva", agent, "AGENT", "eva, uniform, blind, tools, hermes, or mine.py:MyAgent (docs/agents.md)"
    )
    agent_arg: Mapping[str, Any] | Sequence[str] = setting(
        (), agent_arguments, "NAME=VALUE", "what MyAgent is made with; VALUE is JSON or a text; repeat it for several",
        type=str, action="append", default=[],
    )  # fmt: skip
    nframes: int | None = setting(None, positive, "N", f"of uniform: frames of the video (default: {NFRAMES})")
    frame_tokens: int | None = setting(None, positive, "T", f"of uniform: tokens per frame (default: {FRAME_TOKENS})")
    match: Path | None = setting(None, Path, "RESULT", "of uniform: as many tokens per question as that run spent")
    tool_images: str | None = setting(
        None, choices=("tool", "user"), meaning="of tools: the message in which frames are (default: tool)"
    )
    max_turns: int | None = setting(
        None, positive, "N", f"most replies per sample (default: the agent's own, {MAX_TURNS} of eva)"
    )


@dataclass(frozen=True, kw_only=True)
class FrameSettings(CallSettings):
    """How frames are cut, kept and sent. Times are in seconds."""

    max_visual_tokens: int = setting(
        12000, positive, "N", "budget of one tool call, in visual tokens", names=("-v", "--max-visual-tokens")
    )
    maxp: int = setting(720, positive, "P", "the number of lines to which the budget first cuts large frames")
    pixels_per_token: int = setting(PIXELS_PER_TOKEN_SIDE, positive, "P", "side of a visual token (Qwen3-VL: 32)")
    fallback: bool = setting(
        True, meaning="as published: four arguments of the model are passed on, and windows clamped to the video"
    )
    timestamps: str = setting(
        "requested", choices=("requested", "actual"), meaning="times of the labels: as asked for, or as decoded"
    )
    frame_tool: Path = setting(FRAME_TOOL, Path, "FILE", "the command that cuts frames")
    frame_root: Path = setting(FRAME_ROOT, Path, "DIR", "where frames go; the server must be allowed to read it")
    backend: str = setting(
        "auto", choices=DECODERS, meaning="auto: PyAV, then decord where PyAV fails; decord: as the reference"
    )
    image_transport: str | None = setting(
        None, choices=("file", "base64"), meaning="send addresses or images (default: file; with --ray what works)"
    )
    frame_workers: int | None = setting(None, positive, "N", "processes that cut frames (default: as many as CPUs)")
    frame_timeout: float = setting(600.0, positive_number, "S", "seconds for a call; then its process is replaced")
    frame_memory_mb: int = setting(4096, positive, "MB", "memory of a call; decord holds all its frames at once")
    frame_cache_gb: float | None = setting(
        None, positive_number, "GB",
        "most that the frame store holds (default: half of what its disk has free at the start, at most 200)",
    )  # fmt: skip
    frame_format: str = setting("bmp", choices=FORMATS, meaning="of stored frames; bmp is faster, png half as large")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a run goes on, and how much of it goes on at a time. Times are in seconds."""

    max_concurrent: int = setting(30, positive, "N", "samples at the same time")
    sample_timeout: float = setting(
        3600.0, positive_number, "S", "seconds that an agent may take for a sample, the waiting for replies not counted"
    )
    grace: float = setting(60.0, positive_number, "S", "seconds for running samples after an interrupt")
    ray: str | None = setting(
        None, None, "ADDRESS", "run on this Ray cluster, HOST:PORT; without ADDRESS on that of this machine",
        nargs="?", const="auto",
    )  # fmt: skip
    new_cache: bool = setting(False, meaning="delete the cache first")
    retry_error: bool = setting(False, meaning="run failed samples again")
    force: bool = setting(False, meaning="go on with a cache that was made with other settings")


@dataclass(frozen=True, kw_only=True)
class Options(RunSettings, FrameSettings, PlaySettings, ServerSettings, DataSettings):
    """All settings of a run. Each can be given as the text of its flag. Raises SettingsError."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value, read, choices = getattr(self, one.name), one.metadata.get("read"), one.metadata.get("choices")
            if value is None or value is one.default:
                continue
            if choices and value not in choices:
                raise SettingsError(f"{one.name}: {value!r} is not one of {', '.join(choices)}")
            try:
                object.__setattr__(self, one.name, read(value) if read else value)
            except (argparse.ArgumentTypeError, ValueError, TypeError) as error:
                raise SettingsError(f"{one.name}: {error}") from error


def add_flags(group: argparse._ArgumentGroup, settings: type) -> None:
    """The flags of a class of settings, but for those that have no words here."""
    for one in fields(settings):
        flag = dict(one.metadata.get("flag", {}))
        names = flag.pop("names", [f"--{one.name.replace('_', '-')}"])
        if not flag.get("help"):
            continue
        if isinstance(one.default, bool):
            # Until 3.12, BooleanOptionalAction writes a default that it is given here into the help.
            group.set_defaults(**{one.name: flag.pop("default")})
            del flag["type"], flag["metavar"]
            flag["action"] = argparse.BooleanOptionalAction if one.default else "store_true"
        group.add_argument(*names, dest=one.name, **flag)
