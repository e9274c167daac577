"""The flags of a run -> its questions and its agent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from eva.agents.choice import BUILT_IN, FRAME_TOKENS, NFRAMES, AgentChoice, AgentError, read_own
from eva.dataset.items import Item
from eva.files import file_sha256
from eva.json_text import is_number
from eva.protocol.messages import first_question
from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.result_file import read_records
from eva.records.schema import Record
from eva.run.options import Options, SettingsError


def choose_items(items: Sequence[Item], options: Options) -> list[Item]:
    """The items of --ids, and of these --sample many; all without these flags. Raises SettingsError."""
    if options.ids is not None:
        unknown = sorted(set(options.ids) - {item.index for item in items})
        if unknown:
            raise SettingsError(f"--ids: there is no item {', '.join(map(str, unknown[:10]))} in the annotation file")
        items = [item for item in items if item.index in options.ids]
    if options.shuffle is None:
        return list(items[: options.sample])
    if options.sample is None:
        raise SettingsError("--shuffle draws the questions of --sample: add --sample N")
    return draw(items, options.sample, options.shuffle)


def draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """A random choice of `count` items, in their order.

    The choice depends on the seed and on the indices alone, on every machine and in every version of Python. A larger
    choice with the same seed holds the smaller one, so a run can be extended.
    """
    drawn = {item.index for item in sorted(items, key=lambda item: _place(item.index, seed))[:count]}
    return [item for item in items if item.index in drawn]


def _place(index: int, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {index}".encode()).digest()


def choose_agent(options: Options, items: Sequence[Item]) -> AgentChoice:
    """The agent of the flags, able to play `items`. Raises AgentError, ResultError."""
    _check_flags(options)
    own = None if options.agent in BUILT_IN else read_own(options.agent)
    choice = AgentChoice(
        name=options.agent if own is None else f"{own.name}:{own.class_name}",
        own=own,
        nframes=options.nframes or NFRAMES,
        frame_tokens=options.frame_tokens or FRAME_TOKENS,
        spent=read_spent(options.match, items) if options.match else None,
        matched_sha256=file_sha256(options.match) if options.match else None,
        images_for_user=options.tool_images == "user",
        pixels_per_token=options.pixels_per_token,
    )
    choice.make()
    return choice


def _check_flags(options: Options) -> None:
    flags = {
        "--nframes": (options.nframes, "uniform"),
        "--frame-tokens": (options.frame_tokens, "uniform"),
        "--match": (options.match, "uniform"),
        "--tool-images": (options.tool_images, "tools"),
    }
    for flag, (value, agent) in flags.items():
        if value is not None and options.agent != agent:
            raise AgentError(f"{flag} is a setting of --agent {agent}, not of {options.agent}")
    if options.nframes and options.match:
        raise AgentError("--match decides the number of frames: leave --nframes out")


def read_spent(result: Path, items: Sequence[Item]) -> dict[int, int]:
    """The visual tokens that a run spent, by the index of the question. Raises AgentError where it has no usable record
    of one of `items`."""
    records = {record.index: record for record in read_records(result)}
    spent = {}
    for item in items:
        record = records.get(item.index)
        tokens = _tokens(record, item) if record else None
        if tokens is None:
            raise AgentError(
                f"--match {result}: it has no finished record of the question {item.index}: "
                "finish that run (--retry-error), or choose other questions with --ids"
            )
        spent[item.index] = tokens
    return spent


def _tokens(record: Record, item: Item) -> int | None:
    """None for another question, and for a sample that failed by the infrastructure."""
    same = record.question in ("", first_question(item.prompt))
    tokens = record.estimated_visual_tokens
    usable = same and record.outcome.failure != INFRASTRUCTURE and is_number(tokens)
    return int(tokens) if usable and tokens is not None else None
