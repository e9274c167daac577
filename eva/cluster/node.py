"""What runs on a node of a cluster: samples from the driver, with the frame tool and the frame store of this node.

The driver decides when a sample may ask which server, because load, outages and retries concern the whole run. The
request goes from here to the server, with the images. This module does not know Ray. Its methods are called from
another machine: their arguments and results are small, and they return failures as values.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import platform
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import eva
from eva.agent.images import small_image
from eva.agent.sample import SampleRunner
from eva.agent.transcript import load_transcriber
from eva.agents.choice import AgentChoice
from eva.cpus import available_cpus
from eva.dataset.items import Item, locate_video, video_path
from eva.endpoint.client import ChatModel
from eva.endpoint.completion import Reply, image_message
from eva.endpoint.errors import RefusesAllError, UnansweredError, UnavailableError
from eva.endpoint.pool import ChatRequest, Conversation, longest
from eva.errors import EvaError, VideoError
from eva.files import PROJECT
from eva.frames.probing import is_folder
from eva.frames.tool import FrameCounts, FrameToolUnusableError
from eva.protocol.messages import Message
from eva.records.meta import package_versions
from eva.records.schema import Record
from eva.run.connect import make_model, with_small_image
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
    the run that it has; `transport` is how its images reach the servers."""

    problem: str = ""
    workers: int = 0
    videos: frozenset[str] = frozenset()
    transport: str = ""
    transport_reason: str = ""


@dataclass(frozen=True)
class SampleState:
    """A sample has ended with a record, or it waits for the answer to a request of `size` messages.

    With `full` it is neither: the disk of the node takes no more frames, or its frame tool cannot work. `lines` are for
    the user. `counts` counts the frames of the node so far.
    """

    record: Record | None = field(repr=False)
    size: int
    full: str
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


class RunningSample:
    """A sample that runs until it needs a reply, and then waits for `ask` or `give_up`.

    `messages` are those of its next request, `answered` those of the last one that got a reply, `answered_by` is the
    base URL of the server that replied.
    """

    def __init__(self, runner: SampleRunner, item: Item) -> None:
        self.messages: Sequence[Message] = ()
        self._fields: Mapping[str, Any] = {}
        self.answered: Sequence[Message] = ()
        self.answered_by = ""
        self.request: asyncio.Future[Reply] | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._needs_reply = asyncio.Event()
        self._task = asyncio.ensure_future(runner.run(item, self._complete))

    async def _complete(self, messages: Sequence[Message], fields: Mapping[str, Any]) -> Reply:
        self.messages, self._fields = tuple(messages), fields
        self._reply = asyncio.get_running_loop().create_future()
        self._needs_reply.set()
        return await self._reply

    async def wait(self) -> Record | None:
        """Wait until it has ended or needs a reply: its record, or None. Raises FrameToolUnusableError."""
        needs_reply = asyncio.ensure_future(self._needs_reply.wait())
        await asyncio.wait({needs_reply, self._task}, return_when=asyncio.FIRST_COMPLETED)
        needs_reply.cancel()
        return self._task.result() if self._task.done() else None

    async def ask(self, model: ChatModel) -> None:
        """Ask the model for the reply. After an UnavailableError or a RefusesAllError the sample still waits; every
        other error is raised in the sample too."""
        self.request = asyncio.ensure_future(model.complete(self.messages, self._fields))
        try:
            reply = await self.request
        except (UnavailableError, RefusesAllError):
            raise
        except Exception as error:  # raised at the place where a sample in a local run meets it
            self._resume().set_exception(error)
            raise
        self.answered, self.answered_by = self.messages, model.base_url
        self._resume().set_result(reply)

    def _resume(self) -> asyncio.Future[Reply]:
        if self._reply is None:
            raise ValueError("the sample does not wait for a reply")
        self._needs_reply.clear()
        return self._reply

    async def give_up(self, failure: UnavailableError) -> Record | None:
        """End the sample while it waits for a reply: its record, with the completed rounds."""
        self._resume().set_exception(UnansweredError(failure))
        await asyncio.wait({self._task})
        error = self._task.exception()
        return error.record if isinstance(error, UnansweredError) else None

    async def end(self) -> None:
        """Stop the sample at any point."""
        running = [task for task in (self.request, self._task) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class _Lines(logging.Handler):
    """Keeps the lines for the user until the driver takes them."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"node {socket.gethostname()}: {record.getMessage()}")

    def take(self) -> tuple[str, ...]:
        """The lines since the last time."""
        lines, self._lines = tuple(self._lines), []
        return lines


class Node:
    """Runs samples on this machine, many at a time. The driver calls its methods. Each attempt at a sample has a number
    from the driver."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._samples: dict[int, RunningSample] = {}
        self._lines = _Lines()
        logging.getLogger("eva").addHandler(self._lines)
        self._known_good: dict[str, ChatRequest[object] | None] = {}

    async def versions(self) -> Mapping[str, str]:
        """See `versions`."""
        return await asyncio.to_thread(versions)

    async def start(self, videos: Collection[str]) -> Arrival:
        """Load the tokenizer, start the frame tool, find those of `videos` that are here, choose how images travel."""
        try:
            return await self._start(videos)
        except EvaError as error:
            return Arrival(problem=str(error))

    async def _start(self, videos: Collection[str]) -> Arrival:
        # Of transformers only the tokenizer is used, and without torch it prints advice at its import.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        options = self._settings.options
        root, frame_root = on_this_machine(self._settings.video_root), on_this_machine(str(options.frame_root))
        _check_folders(root, frame_root)
        models = [make_model(url, self._settings.model, options) for url in options.base_url]
        self._models = {model.base_url: model for model in models}
        transport, why = await self._transport(options.image_transport, frame_root, await self._reachable())
        here = replace(options, frame_root=frame_root, image_transport=transport)
        self._models = {url: with_small_image(model, here) for url, model in self._models.items()}
        transcribe = await asyncio.to_thread(load_transcriber, options.tokenizer)
        self._tool = make_tool(here, root)
        await self._tool.start()
        self._sample_runner = make_sample_runner(
            self._settings.agent.make(), transcribe, self._tool, root, options=here
        )
        found = await asyncio.to_thread(_find_videos, videos, root)
        workers = options.frame_workers or available_cpus()
        return Arrival(workers=workers, videos=found, transport=transport, transport_reason=why)

    async def _reachable(self) -> list[ChatModel]:
        failures = await asyncio.gather(*(model.probe() for model in self._models.values()))
        if all(failures):
            raise NodeError(f"no server can be used from here: {failures[0]}")
        return [model for model, failure in zip(self._models.values(), failures, strict=True) if not failure]

    async def _transport(self, chosen: str | None, frame_root: Path, models: Sequence[ChatModel]) -> tuple[str, str]:
        """file, if each of these servers can open an image in the frame root of this node, and the reason."""
        if chosen is not None:
            return chosen, "--image-transport says so"
        with small_image(frame_root) as url:
            question = image_message(url)
            refusals = await asyncio.gather(*(model.ask_one_token([question]) for model in models))
        for model, refusal in zip(models, refusals, strict=True):
            if refusal:
                return "base64", f"{model.address} cannot open a frame of this node: {refusal}"
        return "file", "every server opens a frame of this node"

    async def begin(self, number: int, item: Item) -> SampleState:
        """Start a sample, and wait until it needs a reply or has ended."""
        self._samples[number] = RunningSample(self._sample_runner, item)
        return await self.go_on(number)

    async def go_on(self, number: int) -> SampleState:
        """Wait until a sample has used its reply, and needs the next one or has ended."""
        sample = self._samples[number]
        try:
            record = await sample.wait()
        except FrameToolUnusableError as error:
            del self._samples[number]
            return self._state(full=str(error))
        if record is None:
            return self._state(size=len(sample.messages))
        del self._samples[number]
        self._remember_answered(sample)
        return self._state(record=record)

    def _state(self, *, record: Record | None = None, size: int = 0, full: str = "") -> SampleState:
        return SampleState(record, size, full, self._lines.take(), replace(self._tool.counts))

    async def ask(self, number: int, url: str, rank: int | None = None) -> EvaError | bool:
        """Send the request of the sample to the server at `url`, to that rank of it. True: it has its reply. False: the
        server refused the request itself. An error: the server failed or refuses all, and the sample still waits."""
        sample = self._samples[number]
        try:
            await sample.ask(replace(self._models[url], rank=rank))
        except (UnavailableError, RefusesAllError) as failure:
            return failure
        except Exception:  # it is raised in the sample too, and its record says it
            return False
        return True

    def _remember_answered(self, sample: RunningSample) -> None:
        """Keep the last answered request of a finished sample: a server that works answers it again."""
        if sample.answered:
            before = self._known_good.get(sample.answered_by)
            self._known_good[sample.answered_by] = longest(Conversation(sample.answered), before)

    async def ask_one_token(self, url: str) -> str:
        """Why the server at `url` does not answer again what it answered before, or the empty text."""
        request = self._known_good.get(url)
        if request is None:
            return "the server has not answered this node yet"
        return await request.ask_one_token(self._models[url])

    async def give_up(self, number: int, failure: UnavailableError) -> Record | None:
        """End a sample whose request keeps failing: its record with the completed rounds; None if it has ended."""
        sample = self._samples.pop(number, None)
        return await sample.give_up(failure) if sample is not None else None

    async def drop(self, number: int) -> None:
        """Stop a sample, and wait until it has stopped."""
        sample = self._samples.pop(number, None)
        if sample is not None:
            await sample.end()

    async def close(self) -> None:
        """Stop all samples and the frame tool."""
        for number in tuple(self._samples):
            await self.drop(number)
        await self._tool.close()
        logging.getLogger("eva").removeHandler(self._lines)


def _check_folders(video_root: Path, frame_root: Path) -> None:
    if not is_folder(video_root):
        raise NodeError(f"there is no video folder {video_root}")
    try:
        frame_root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NodeError(f"the frame root {frame_root} cannot be made: {error.strerror}") from error
    if not os.access(frame_root, os.W_OK):
        raise NodeError(f"the frame root {frame_root} cannot be written to")


def _find_videos(videos: Iterable[str], root: Path) -> frozenset[str]:
    return frozenset(video for video in videos if _is_here(video, root))


def _is_here(video: str, root: Path) -> bool:
    try:
        locate_video(video_path(Item(0, (video,), (), ""), root))
    except VideoError:
        return False
    return True
