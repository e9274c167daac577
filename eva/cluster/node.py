"""What runs on a node of a cluster: the samples that the driver gives it, with this node's own frame tool, index of
each video and frame store.

The driver decides when a sample may ask which server, so that load, outages and retries are one affair for the whole
run; the request itself goes from here to the server, and with it the images. Nothing here knows of Ray, but that a
method call may come from another machine: what it takes and gives is small, and its failures are values.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import eva
from eva.agent.images import file_url
from eva.agent.sample import Sampler
from eva.agent.transcript import load_transcriber
from eva.cpus import available_cpus
from eva.dataset.items import Item, video_path
from eva.dataset.locate import locate_video
from eva.endpoint.client import ChatModel, Reply, make_client
from eva.endpoint.errors import UnansweredError, UnavailableError
from eva.endpoint.pool import Conversation, Request, longest
from eva.errors import EvaError, VideoError
from eva.frames.probing import is_folder
from eva.frames.tool import FrameCounts, FrameToolUnusableError
from eva.protocol.messages import Message
from eva.records.meta import package_versions
from eva.records.schema import Record
from eva.run.assembly import make_sampler, make_tool
from eva.run.options import Options
from eva.run.preflight import black_frame, one_image


class NodeError(EvaError):
    """This machine cannot play samples of the run; the message says why."""


@dataclass(frozen=True)
class Orders:
    """What every node of a run is told. Paths may begin with a variable of the node's environment."""

    options: Options
    model: str
    video_root: str
    own_tool: Path


@dataclass(frozen=True)
class Arrival:
    """A node that is ready, or why it is not. `videos` are those of the run that it has, by their annotated names."""

    host: str
    problem: str = ""
    workers: int = 0
    videos: frozenset[str] = frozenset()
    transport: str = ""
    transport_reason: str = ""


@dataclass(frozen=True)
class Turn:
    """Where a sample stands: it is over and has a record, or wants the answer to a request of `size` messages.

    `full`: neither, for the node's disk takes no more frames, or its frame tool cannot work. `said` is for the user,
    `usage` the node's so far.
    """

    record: Record | None = field(repr=False)
    size: int
    full: str
    said: tuple[str, ...]
    usage: FrameCounts


def versions(own_tool: Path) -> Mapping[str, str]:
    """What must be the same on all machines of a run, or its records would not be of one kind."""
    python = ".".join(platform.python_version_tuple()[:2])
    imported, beside_tool = Path(eva.__file__).parent, own_tool.parent / "eva"
    code = [_sha256(imported, imported.rglob("*.py")), _sha256(own_tool.parent, [own_tool, *beside_tool.rglob("*.py")])]
    return {
        "Python": python,
        "this code": hashlib.sha256("".join(code).encode()).hexdigest()[:12],
        **package_versions(),
    }


def _sha256(root: Path, files: Iterable[Path]) -> str:
    """Of the names below `root` and the contents."""
    digest = hashlib.sha256()
    for file in sorted(files):
        name = str(file.relative_to(root)).encode()
        digest.update(name + b"\0" + (file.read_bytes() if file.is_file() else b"missing"))
    return digest.hexdigest()


def on_this_machine(path: str) -> Path:
    """`$SCRATCH/frames` -> the folder that it is here. Raises NodeError where the variable is not set."""
    expanded = Path(os.path.expandvars(path) if path.startswith("$") else path)
    if not expanded.is_absolute():
        raise NodeError(f"{path} is no absolute path here (is the variable set where ray was started?)")
    return expanded


class Play:
    """A sample under way: it runs until it wants a reply, and then waits for `answer` or `refuse`."""

    def __init__(self, sampler: Sampler, item: Item) -> None:
        self.messages: Sequence[Message] = ()
        self.answered: Sequence[Message] = ()
        self.answered_by = ""
        self.request: asyncio.Future[Reply] | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._wants = asyncio.Event()
        self._task = asyncio.ensure_future(sampler.run(item, self._complete))

    async def _complete(self, messages: Sequence[Message]) -> Reply:
        self.messages = tuple(messages)
        self._reply = asyncio.get_running_loop().create_future()
        self._wants.set()
        return await self._reply

    async def turn(self) -> Record | None:
        """The record of a sample that is over; None when it wants a reply. Raises FrameToolUnusableError."""
        wants = asyncio.ensure_future(self._wants.wait())
        await asyncio.wait({wants, self._task}, return_when=asyncio.FIRST_COMPLETED)
        wants.cancel()
        return self._task.result() if self._task.done() else None

    async def ask(self, model: ChatModel) -> None:
        """Have the model reply. Raises UnavailableError, and the sample still waits; BadRequestError and the like,
        and the sample has heard of it."""
        self.request = asyncio.ensure_future(model.complete(self.messages))
        try:
            reply = await self.request
        except UnavailableError:
            raise
        except Exception as error:  # it is raised where a sample in the driver's own process would meet it
            self._resume().set_exception(error)
            raise
        self.answered, self.answered_by = self.messages, model.base_url
        self._resume().set_result(reply)

    def _resume(self) -> asyncio.Future[Reply]:
        if self._reply is None:
            raise ValueError("a sample that wants nothing was given something")
        self._wants.clear()
        return self._reply

    async def give_up(self, failure: UnavailableError) -> Record | None:
        """End a sample that waits for a reply: its record, with the rounds that it completed."""
        self._resume().set_exception(UnansweredError(failure))
        await asyncio.wait({self._task})
        error = self._task.exception()
        return error.record if isinstance(error, UnansweredError) else None

    async def end(self) -> None:
        """Stop the sample, wherever it is."""
        running = [task for task in (self.request, self._task) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Node:
    """Plays samples on this machine, many at a time; the driver calls its methods. A sample is named by the number
    that the driver gives each attempt at it."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._plays: dict[int, Play] = {}
        self._said: list[str] = []
        self._witnesses: dict[str, Request[object] | None] = {}

    async def versions(self) -> Mapping[str, str]:
        """See `versions`."""
        return await asyncio.to_thread(versions, self._orders.own_tool)

    async def start(self, videos: Collection[str]) -> Arrival:
        """Make ready: tokenizer, frame tool, which of `videos` are here, how images reach the servers."""
        host = socket.gethostname()
        try:
            return await self._started(host, videos)
        except EvaError as error:
            return Arrival(host, problem=str(error))

    async def _started(self, host: str, videos: Collection[str]) -> Arrival:
        # Only the tokenizer is wanted of transformers, which says at its import that torch is not there.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        options = self._orders.options
        root, frame_root = on_this_machine(self._orders.video_root), on_this_machine(str(options.frame_root))
        _check_folders(root, frame_root)
        clients = (make_client(url, options.api_key, options.request_timeout) for url in options.base_url)
        models = [ChatModel(client, self._orders.model) for client in clients]
        self._models = {model.base_url: model for model in models}
        await self._check_reach()
        transport, why = await self._transport(options.image_transport, frame_root)
        here = replace(options, frame_root=frame_root, image_transport=transport)
        transcribe = await asyncio.to_thread(load_transcriber, options.tokenizer)
        self._tool = make_tool(here, own_tool=self._orders.own_tool)
        await self._tool.start(lambda line: self._said.append(f"node {host}: {line}"))
        self._sampler = make_sampler(transcribe, self._tool, root, here, self._said.append)
        found = await asyncio.to_thread(_found, videos, root)
        workers = options.frame_workers or available_cpus()
        return Arrival(host, workers=workers, videos=found, transport=transport, transport_reason=why)

    async def _check_reach(self) -> None:
        failures = await asyncio.gather(*(model.probe() for model in self._models.values()))
        if all(failures):
            raise NodeError(f"no server can be used from here: {failures[0]}")

    async def _transport(self, chosen: str | None, frame_root: Path) -> tuple[str, str]:
        """file, if every server opens a picture that this node puts where its frames will be."""
        if chosen is not None:
            return chosen, "--image-transport says so"
        with black_frame(frame_root) as frame:
            question = one_image(file_url(frame))
            refusals = await asyncio.gather(*(model.try_out([question]) for model in self._models.values()))
        for model, refusal in zip(self._models.values(), refusals, strict=True):
            if refusal:
                return "base64", f"{model.address} cannot open a frame of this node: {refusal}"
        return "file", "every server opens a frame of this node"

    async def begin(self, number: int, item: Item) -> Turn:
        """Start a sample; how far it comes without a reply."""
        self._plays[number] = Play(self._sampler, item)
        return await self.go_on(number)

    async def go_on(self, number: int) -> Turn:
        """Where a sample stands once it has used the reply that it was given."""
        play = self._plays[number]
        try:
            record = await play.turn()
        except FrameToolUnusableError as error:
            del self._plays[number]
            return self._turn(full=str(error))
        if record is None:
            return self._turn(size=len(play.messages))
        del self._plays[number]
        self._remember(play)
        return self._turn(record=record)

    def _turn(self, *, record: Record | None = None, size: int = 0, full: str = "") -> Turn:
        said, self._said[:] = tuple(self._said), []
        return Turn(record, size, full, said, replace(self._tool.usage))

    async def ask(self, number: int, url: str) -> UnavailableError | bool:
        """Have the server at `url` answer what the sample wants to know: whether it did, False if it refused the
        request itself; or what failed, and the sample goes on wanting."""
        play = self._plays[number]
        try:
            await play.ask(self._models[url])
        except UnavailableError as failure:
            return failure
        except Exception:  # the sample was told, and its record will say it
            return False
        return True

    def _remember(self, play: Play) -> None:
        """Keep of a finished sample what a server answered, to be asked again as a proof that it can."""
        if play.answered:
            before = self._witnesses.get(play.answered_by)
            self._witnesses[play.answered_by] = longest(Conversation(play.answered), before)

    async def try_out(self, url: str) -> str:
        """Why the server at `url` does not answer what it answered before, or the empty text."""
        witness = self._witnesses.get(url)
        return await witness.try_out(self._models[url]) if witness else "it has answered nothing to this node yet"

    async def give_up(self, number: int, failure: UnavailableError) -> Record | None:
        """End a sample whose request keeps failing: its record, with the rounds that it completed."""
        play = self._plays.pop(number, None)
        return await play.give_up(failure) if play is not None else None

    async def drop(self, number: int) -> None:
        """Stop a sample; it is over when this returns."""
        play = self._plays.pop(number, None)
        if play is not None:
            await play.end()

    async def close(self) -> None:
        """End all that runs here."""
        for number in tuple(self._plays):
            await self.drop(number)
        await self._tool.close()


def _check_folders(video_root: Path, frame_root: Path) -> None:
    if not is_folder(video_root):
        raise NodeError(f"there is no video folder {video_root}")
    try:
        frame_root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NodeError(f"the frame root {frame_root} cannot be made: {error.strerror}") from error
    if not os.access(frame_root, os.W_OK):
        raise NodeError(f"the frame root {frame_root} cannot be written to")


def _found(videos: Iterable[str], root: Path) -> frozenset[str]:
    return frozenset(video for video in videos if _is_here(video, root))


def _is_here(video: str, root: Path) -> bool:
    try:
        locate_video(video_path(Item(0, (video,), (), ""), root))
    except VideoError:
        return False
    return True
