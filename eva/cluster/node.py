"""What runs on a node of a cluster: whole samples, with the frame tool and the frame store of this node.

The driver names the server and the rank of each sample. The sample asks that server from here, with the images, and
waits out its outages by the same rules as in a local run. This module does not know Ray. Its methods are called from
another machine: they return failures as values.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import platform
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from logging.handlers import BufferingHandler
from pathlib import Path

import eva
from eva.agent.transcript import load_transcriber
from eva.agents.choice import AgentChoice
from eva.cpus import available_cpus
from eva.dataset.items import Item, locate_video, video_path
from eva.endpoint import pool
from eva.endpoint.client import ChatModel
from eva.endpoint.completion import image_message
from eva.errors import EvaError, VideoError
from eva.files import PROJECT
from eva.frames.tool import FrameCounts
from eva.frames.tools import is_folder
from eva.records.meta import package_versions
from eva.records.schema import Record
from eva.run.connect import make_model, small_image
from eva.run.executor import make_sample_runner, make_tool
from eva.run.options import FRAME_TOOL, Options


class NodeError(EvaError):
    """This machine cannot run samples of the run; the message says why."""


@dataclass(frozen=True)
class NodeSettings:
    """The settings of a run for its nodes. Paths may begin with a variable of the environment of the node."""

    options: Options
    model: str
    video_root: str
    agent: AgentChoice = field(default_factory=AgentChoice)


@dataclass(frozen=True)
class Arrival:
    """A node that is ready, or the problem that keeps it from that. `videos` are the annotated names of those videos of
    the run that it has; `transport` is how its images reach the servers, and why."""

    problem: str = ""
    workers: int = 0
    videos: frozenset[str] = frozenset()
    transport: str = ""


@dataclass(frozen=True)
class Played:
    """What became of a sample: its record, or what keeps it from one.

    `refused_rank` is a rank that its server does not have. `lines` are for the user. `counts` counts the frames of the
    node so far.
    """

    result: Record | EvaError = field(repr=False)
    refused_rank: int | None
    lines: tuple[str, ...]
    counts: FrameCounts


def versions() -> Mapping[str, str]:
    """What must be the same on all machines of a run: otherwise its records could not be compared."""
    digest = hashlib.sha256()
    for file in sorted([FRAME_TOOL, *Path(eva.__file__).parent.rglob("*.py")]):
        name = str(file.relative_to(PROJECT)).encode()
        digest.update(name + b"\0" + (file.read_bytes() if file.is_file() else b"missing"))
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "this code": digest.hexdigest()[:12],
        **package_versions(),
    }


def on_this_machine(path: str) -> Path:
    """`$SCRATCH/frames` -> the path on this machine. Raises NodeError if the variable is not set here."""
    expanded = Path(os.path.expandvars(path) if path.startswith("$") else path)
    if not expanded.is_absolute():
        raise NodeError(f"{path} is not an absolute path here (is the variable set where ray was started?)")
    return expanded


class Node:
    """Runs samples on this machine, many at a time. The driver calls its methods."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._running: set[asyncio.Task[Record]] = set()
        self._lines = BufferingHandler(capacity=10**6)  # for the user, until the driver gets them
        self._lines.addFilter(lambda record: record.name != pool.__name__)  # the driver tells of outages itself
        logging.getLogger("eva").addHandler(self._lines)

    async def start(self, expected: Mapping[str, str], videos: Collection[str]) -> Arrival:
        """Load the tokenizer, start the frame tool, find those of `videos` that are here, choose how images travel. The
        versions must be the `expected` ones."""
        try:
            here = await asyncio.to_thread(versions)
            if differing := sorted({name for name, _ in expected.items() ^ here.items()}):
                words = ", ".join(f"{name} {here.get(name)} there, {expected.get(name)} here" for name in differing)
                raise NodeError(f"it is not set up as this machine: {words}")
            return await self._start(videos)
        except EvaError as error:
            return Arrival(problem=str(error))

    async def _start(self, videos: Collection[str]) -> Arrival:
        # Of transformers only the tokenizer is used, and without torch it prints advice at its import.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        options, name = self._settings.options, self._settings.model
        root, frame_root = on_this_machine(self._settings.video_root), on_this_machine(str(options.frame_root))
        if not is_folder(root):
            raise NodeError(f"there is no video folder {root}")
        try:
            frame_root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NodeError(f"the frame root {frame_root} cannot be made: {error.strerror}") from error
        models = [make_model(url, name, options) for url in options.base_url]
        failures = await asyncio.gather(*(model.probe() for model in models))
        if all(failures):
            raise NodeError(f"no server can be used from here: {failures[0]}")
        reachable = [model for model, failure in zip(models, failures, strict=True) if not failure]
        transport, why = await _choose_transport(options.image_transport, frame_root, reachable)
        options = replace(options, frame_root=frame_root, image_transport=transport)
        transcribe = await asyncio.to_thread(load_transcriber, options.tokenizer)
        self._tool = make_tool(options, root)
        await self._tool.start()
        self._runner = make_sample_runner(self._settings.agent.make(), transcribe, self._tool, root, options=options)
        models = [make_model(url, name, options) for url in options.base_url]
        self._servers = pool.Servers(
            [replace(model, down=failure) for model, failure in zip(models, failures, strict=True)],
            ceiling=options.max_concurrent,
            outage_timeout_s=options.outage_timeout,
            ranks=0,  # the driver chooses them
        )
        found = await asyncio.to_thread(_find_videos, videos, root)
        return Arrival("", options.frame_workers or available_cpus(), found, f"{transport} ({why})")

    async def run(self, item: Item, url: str, rank: int | None) -> Played:
        """Run a sample, which asks that rank of the server at `url`."""
        assignment = self._servers.named(url, rank)
        task = asyncio.ensure_future(self._runner.run(item, assignment.complete))
        self._running.add(task)
        result: Record | EvaError
        try:
            result = await task
        except EvaError as error:
            result = error
        finally:
            self._running.discard(task)
        lines = tuple(f"node {socket.gethostname()}: {record.getMessage()}" for record in self._lines.buffer)
        self._lines.flush()
        return Played(result, assignment.refused_rank, lines, replace(self._tool.counts))

    async def close(self) -> None:
        """Stop all samples and the frame tool."""
        tasks = tuple(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._servers.close()
        await self._tool.close()
        logging.getLogger("eva").removeHandler(self._lines)


async def _choose_transport(chosen: str | None, frame_root: Path, models: Sequence[ChatModel]) -> tuple[str, str]:
    """file, if each of these servers can open an image in the frame root of this node, and the reason."""
    if chosen is not None:
        return chosen, "--image-transport says so"
    try:
        with small_image(frame_root) as url:
            for model in models:
                if refusal := await model.ask_one_token([image_message(url)]):
                    return "base64", f"{model.address} cannot open a frame of this node: {refusal}"
    except OSError as error:
        raise NodeError(f"the frame root {frame_root} cannot be written to: {error.strerror}") from error
    return "file", "every server opens a frame of this node"


def _find_videos(videos: Collection[str], root: Path) -> frozenset[str]:
    found = set()
    for video in videos:
        with suppress(VideoError):
            locate_video(video_path(Item(0, (video,), (), ""), root))
            found.add(video)
    return frozenset(found)
