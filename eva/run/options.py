"""The settings of a run: each is a keyword of `eva.evaluate` and a flag of `eval-eva.py`. Defaults stand here."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from eva.endpoint.completion import MAX_TOKENS, TEMPERATURE, Sampling
from eva.errors import EvaError
from eva.files import PROJECT
from eva.json_text import parse_json
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.video.choices import DECODERS, FORMATS

# The environment variable that holds the key if nothing else gives it, and the key of servers that want none.
API_KEY_VARIABLE, NO_API_KEY = "EVA_API_KEY", "EMPTY"
# This project's own frame tool.
FRAME_TOOL = PROJECT / "select_frame_fallback.py"
# As OpenAI's interface has it; and what every server takes, with room for the repeats.
MAX_TEMPERATURE, MAX_SEED = 2.0, 2**31 - 10**6


class SettingsError(EvaError):
    """Settings with which no run can start."""


def setting(
    default: Any, read: Callable[[Any], Any] | None = None, *, choices: Sequence[str] = (), secret: bool = False
) -> Any:
    """A field with its default. `read` makes its value of the text of a flag, or of a value that it made before. It
    raises ValueError or ArgumentTypeError."""
    return field(default=default, metadata={"type": read, "choices": choices}, repr=not secret)


# --- what flags say as text


def positive(value: str | int) -> int:
    """A whole number above 0."""
    number = int(value)
    if number < 1 or (isinstance(value, float) and value != number):
        raise argparse.ArgumentTypeError(f"{value} is not a whole number above 0")
    return number


def positive_number(value: str | float) -> float:
    """A finite number above 0."""
    number = float(value)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{value} is not a number above 0")
    return number


def addresses(urls: str | Collection[str]) -> tuple[str, ...]:
    """The addresses, or those between commas; `http://host:8000-8007/v1` stands for eight. Each comes once."""
    parts = [part for some in ([urls] if isinstance(urls, str) else urls) for part in some.split(",") if part]
    if not parts:
        raise argparse.ArgumentTypeError("there is no address")
    return tuple(dict.fromkeys(address for part in parts for address in _expand_ports(part)))


def _expand_ports(address: str) -> list[str]:
    # What follows the ports tells them from a password: `http://me:12-34@host/v1`.
    match = re.fullmatch(r"([^/]*//[^/?#]*:)(\d{1,5})-(\d{1,5})((?:[/?#].*)?)", address, re.ASCII)
    if match is None:
        return [address]
    first, last = int(match[2]), int(match[3])
    if not first <= last <= 65535:
        raise argparse.ArgumentTypeError(f"the ports {first}-{last} run backwards, or are beyond 65535")
    return [f"{match[1]}{port}{match[4]}" for port in range(first, last + 1)]


def rank_count(value: str | int) -> int | None:
    """A number of data-parallel ranks; None for `auto`."""
    return None if value == "auto" else 0 if value in (0, "0") else positive(value)


def temperature(value: str | float) -> float:
    """From 0 to MAX_TEMPERATURE."""
    number = float(value)
    if not 0 <= number <= MAX_TEMPERATURE:
        raise argparse.ArgumentTypeError(f"{value} is not from 0 to {MAX_TEMPERATURE:g}")
    return number


def seed(value: str | int) -> int:
    """From 0 to MAX_SEED."""
    number = int(value)
    if not 0 <= number <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{value} is not from 0 to {MAX_SEED}")
    return number


def json_fields(value: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """A JSON object, without the fields that the run decides."""
    found = parse_json(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise argparse.ArgumentTypeError(f"{value} is not a JSON object")
    own = found.keys() & {"messages", "model", "stream", "n", "max_tokens", "max_completion_tokens"}
    if own:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(own))} cannot be set here")
    return found


def header_line(text: str) -> tuple[str, str]:
    """`NAME: VALUE` -> both."""
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", name) or not re.fullmatch(r"[\t -~]*", value):
        raise argparse.ArgumentTypeError("a header has the form 'NAME: VALUE'")
    return name, value.strip()


def header_lines(headers: Mapping[str, str] | Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Names and values, checked."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return tuple(header_line(f"{name}: {value}") for name, value in pairs)


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
    jsonl: Path | None = setting(None, Path)
    video_root: Path | None = setting(None, Path)
    videos: Path | None = setting(None, Path)
    sample: int | None = setting(None, positive)
    shuffle: int | None = setting(None, int)
    ids: Collection[int] | None = setting(None, index_set)
    output_dir: Path = setting(Path(), Path)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The servers, and what each request asks of them. Times are in seconds."""

    base_url: str | Collection[str] = setting(("http://127.0.0.1:8000/v1",), addresses, secret=True)
    api_key: str | None = setting(None, secret=True)
    model: str | None = setting(None)
    tokenizer: str = setting("models/EVA", str)
    data_parallel_ranks: int | None = setting(None, rank_count)
    max_tokens: int = setting(MAX_TOKENS, positive)
    extra_body: Mapping[str, Any] | None = setting(None, json_fields)
    header: Mapping[str, str] | Sequence[tuple[str, str]] = setting((), header_lines, secret=True)
    request_timeout: float = setting(600.0, positive_number)
    outage_timeout: float = setting(1800.0, positive_number)
    temperature: float = setting(TEMPERATURE, temperature)
    seed: int | None = setting(None, seed)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens, self.temperature, self.seed, self.extra_body or {})

    @property
    def key(self) -> str:
        """The key, of the environment where no setting gives it."""
        return self.api_key or os.environ.get(API_KEY_VARIABLE, "").strip() or NO_API_KEY


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """Who plays."""

    agent: str = setting("eva", str)
    nframes: int | None = setting(None, positive)
    frame_tokens: int | None = setting(None, positive)
    match: Path | None = setting(None, Path)
    tool_images: str | None = setting(None, choices=("tool", "user"))
    max_turns: int = setting(6, positive)


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """How frames are cut, kept and sent. Times are in seconds."""

    max_visual_tokens: int = setting(12000, positive)
    maxp: int = setting(720, positive)
    pixels_per_token: int = setting(PIXELS_PER_TOKEN_SIDE, positive)
    fallback: bool = True
    timestamps: str = setting("requested", choices=("requested", "actual"))
    frame_tool: Path = setting(FRAME_TOOL, Path)
    frame_root: Path = setting(Path("/tmp/eva-frames"), Path)  # noqa: S108
    backend: str = setting("auto", choices=DECODERS)
    image_transport: str | None = setting(None, choices=("file", "base64"))
    frame_workers: int | None = setting(None, positive)
    frame_timeout: float = setting(600.0, positive_number)
    frame_memory_mb: int = setting(4096, positive)
    frame_cache_gb: float | None = setting(None, positive_number)
    frame_format: str = setting("bmp", choices=FORMATS)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a run goes on, and how much of it goes on at a time. Times are in seconds."""

    max_concurrent: int = setting(30, positive)
    grace: float = setting(60.0, positive_number)
    ray: str | None = setting(None)
    new_cache: bool = False
    retry_error: bool = False
    force: bool = False
    same_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class Options(RunSettings, FrameSettings, AgentSettings, ServerSettings, DataSettings):
    """All settings of a run. Each can be given as the text of its flag. Raises SettingsError."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value, read, choices = getattr(self, one.name), one.metadata.get("type"), one.metadata.get("choices")
            if value is None or value is one.default:
                continue
            if choices and value not in choices:
                raise SettingsError(f"{one.name}: {value!r} is not one of {', '.join(choices)}")
            try:
                object.__setattr__(self, one.name, read(value) if read else value)
            except (argparse.ArgumentTypeError, ValueError, TypeError) as error:
                raise SettingsError(f"{one.name}: {error}") from error


def flag(name: str, metavar: str | None = None) -> dict[str, Any]:
    """What argparse's `add_argument` takes for the setting of this name."""
    one = next(one for one in fields(Options) if one.name == name)
    choices = one.metadata["choices"]
    named = {"choices": choices} if choices else {"type": one.metadata["type"], "metavar": metavar}
    return {"default": one.default, **named}
