"""One sample as its agent has it: the question, the conversation, replies and frames. It records all that happens."""

from __future__ import annotations

import asyncio
import math
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import eva
from eva.agent.interface import Agent, Scale, Task, TaskVideo
from eva.agent.refusal import PictureUnreadableError, find_picture_problem
from eva.agent.tool_call import Outcome
from eva.dataset.items import Item, video_path
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError
from eva.errors import EvaError, VideoError
from eva.frames.tool import FoundVideo
from eva.json_text import MOST_LEVELS, is_number
from eva.protocol.messages import Frame, Message, PromptError, assistant_message
from eva.protocol.reply import Answer, CallAttempt, Stop
from eva.protocol.stop_reasons import ANSWER_FOUND, BAD_REQUEST, MAX_TURNS_EXCEEDED, NO_ANSWER_NO_TOOL_CALL
from eva.records.schema import Refusal, Round

if TYPE_CHECKING:
    from eva.agent.sample import SampleRunner

T = TypeVar("T")
# How long a cancelled agent may take to end. Then it is ended by force.
END_S = 5.0

# A request: its messages, and the further fields of its body.
Complete = Callable[[Sequence[Message], Mapping[str, Any]], Awaitable[Reply]]


class AgentFaultError(EvaError):
    """The agent's code fails, or breaks a rule of docs/agents.md."""


class FramesError(VideoError):
    """Frames that the agent itself wants cannot be cut."""


class TurnsOverError(EvaError):
    """The agent asks though no turn is left."""


@dataclass
class Episode:
    """A sample as far as it has come; `stop_reason` is empty until it ends.

    `messages` are the conversation at the end. `outcomes` are those of the calls before the first reply, then those
    after each reply; None stands for a call under way. `abandoned` are requests, by their round, that the conversation
    did not go on from. `labelled` are the frames, by address and label, that were shown with EVA's labels. `refusal` is
    what the server said to the bad request that ended the sample. `seat_s`, `server_s`, `frames_s`: see Waited.
    """

    video_file: str = ""
    video_duration_s: float | None = None
    messages: list[Message] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    outcomes: list[list[Outcome | None]] = field(default_factory=lambda: [[]])
    abandoned: dict[int, list[Message]] = field(default_factory=dict)
    labelled: set[tuple[str, str]] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)
    answer: str = ""
    stop_reason: str = ""
    refusal: str = ""
    seat_s: float = 0.0
    server_s: float = 0.0
    frames_s: float = 0.0

    def all_outcomes(self) -> list[Outcome]:
        """What became of all calls."""
        return [outcome for outcomes in self.outcomes for outcome in outcomes if outcome is not None]

    def stop(self, stop_reason: str, *, answer: str = "") -> None:
        self.stop_reason, self.answer = stop_reason, answer


class Sample:
    """One sample, for its agent: what it may see and do (docs/agents.md).

    `messages` is the agent's own: it appends, rewrites, begins anew. A failure that is not the agent's is raised again
    by whatever it tries next, and ends the sample also where the agent catches it.
    """

    def __init__(
        self, item: Item, found: FoundVideo, episode: Episode, runner: SampleRunner, complete: Complete
    ) -> None:
        """`found` is the first video of `item`; what happens is in `episode`."""
        first = TaskVideo(**vars(found.info), name=item.videos[0], path=found.path)
        others = [TaskVideo(0.0, 0, 0, name) for name in item.videos[1:]]
        self.task = Task(item.index, item.prompt, [first, *others], item.extra)
        self.turns_left = runner.max_turns
        self.messages: list[Message] = []
        self._item, self._episode, self._runner, self._complete = item, episode, runner, complete
        self._began_at = monotonic()
        self._request: list[Message] = []
        self._asked_at: float | None = None
        self._frames_under_way, self._frames_since = 0, 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: Exception | None = None
        self._over = False

    async def complete(self, **fields: Any) -> Reply:
        """Ask the model, and append its reply to `messages`. `fields` are further ones of the body, such as `tools`.

        Where no turn of --max-turns is left, the sample ends here. Raises BadRequestError where the server refuses the
        request; that costs the turn, too.
        """
        with self._working():
            if self._asked_at is not None:
                raise AgentFaultError("the agent asks while it waits for a reply")
            if not self.turns_left:
                raise TurnsOverError
            messages = self._next_request()
            self.turns_left -= 1
            self._asked_at = monotonic()
            try:
                return await self._ask(messages, _as_json(fields, "the fields of a request"))
            finally:
                self._asked_at = None

    async def _ask(self, messages: list[Message], fields: Mapping[str, Any]) -> Reply:
        episode, asked_at = self._episode, monotonic()
        try:
            reply = await self._wait_for(self._complete(messages, fields))
        except BadRequestError as error:
            files = [Path(file) for outcome in episode.all_outcomes() for file in outcome.call.frames]
            if self._runner.sends_frames and (
                problem := await asyncio.to_thread(find_picture_problem, str(error), files)
            ):
                raise PictureUnreadableError(problem) from error
            episode.refusals.append(Refusal(len(episode.rounds), str(error)))
            raise
        finally:
            self._began_at += monotonic() - asked_at  # an agent is not to blame for what a reply takes
        episode.seat_s += max(0.0, monotonic() - asked_at - reply.seconds)
        episode.server_s += reply.seconds
        native = list(map(asdict, reply.calls)) or None
        round_ = Round(reply.text, reply.usage, reply.seconds, reply.finish_reason, (), reply.reasoning, native)
        self._request = messages
        episode.rounds.append(round_)
        episode.outcomes.append([])
        self.messages.append(assistant_message(reply.text))
        return reply

    def _next_request(self) -> list[Message]:
        """The messages as they are now. What the agent does to them later changes neither request nor record."""
        messages: list[Message] = _as_json(self.messages, "s.messages")
        if not isinstance(self.messages, list) or not all(
            isinstance(one, dict) and isinstance(one.get("role"), str) for one in messages
        ):
            raise AgentFaultError("s.messages is not a list of messages, each an object with a role")
        goes_on = messages[: len(self._request)] == self._request
        if not goes_on and self._episode.rounds:
            self._episode.abandoned[len(self._episode.rounds)] = self._request
        self._note_labels(messages[len(self._request) if goes_on else 0 :])
        return messages

    def _note_labels(self, messages: Sequence[Message]) -> None:
        for message in messages:
            parts = message.get("content")
            label = ""
            for part in parts if isinstance(parts, list) else ():
                if not isinstance(part, dict):
                    continue
                if part.get("type") == "image_url" and isinstance(part.get("image_url"), dict):
                    self._episode.labelled.add((str(part["image_url"].get("url")), label))
                label = str(part.get("text", "")).strip().rpartition(" at ")[2]

    async def calls(self, calls: Sequence[CallAttempt]) -> list[Outcome]:
        """Run calls of the model side by side, each cut to the budget. An outcome has frames or an error."""
        if not all(isinstance(call, CallAttempt) for call in calls):
            raise TypeError(f"calls must be CallAttempts (eva.protocol.reply): {calls!r:.80}")
        return await self._look(calls, self.task.video, budget=True)

    async def frames(
        self,
        *,
        start: float,
        end: float,
        n: int,
        size: Scale | None = None,
        video: TaskVideo | None = None,
        budget: bool = False,
    ) -> Sequence[Frame]:
        """`n` frames that the agent itself wants, evenly spaced from second `start` to `end`, both included.

        They are of the first video, or of one that `open` gave. Raises FramesError.
        """
        window = {"start_time": start, "end_time": end, "nframes": n}
        times = is_number(start) and is_number(end) and math.isfinite(start) and math.isfinite(end)
        if not times or not is_number(n) or n != int(n) or n < 1:
            raise ValueError(f"start and end must be seconds, and n a whole number above 0: {window}")
        if not isinstance(video or self.task.video, TaskVideo) or not isinstance(size, Scale | None):
            raise TypeError(f"video must be one of s.task.videos, and size a Scale: {video!r:.80}, {size!r:.80}")
        attempt = CallAttempt.of(**window, **({} if size is None else {"resize": size.ratio}))
        (outcome,) = await self._look([attempt], video or self.task.video, budget=budget)
        if outcome.error:
            shown = "wants" if self._episode.rounds else "opens with"
            raise FramesError(f"the frames that the agent {shown} cannot be cut: {outcome.reason or outcome.error}")
        return outcome.frames

    async def open(self, number: int = 0) -> TaskVideo:
        """A video of the task with all that its index tells: rate and number of frames. Raises VideoError."""
        if not isinstance(number, int) or not 0 <= number < len(self.task.videos):
            raise IndexError(f"the question has {len(self.task.videos)} videos, and no video {number!r:.40}")
        with self._working():
            self.task.videos[number] = await self._wait_for(self._open(self.task.videos[number], number))
        return self.task.videos[number]

    async def _open(self, video: TaskVideo, number: int) -> TaskVideo:
        tool = self._runner.call_runner.tool
        if number and video.frames is None:
            annotated = video_path(replace(self._item, videos=(video.name,)), self._runner.video_root)
            found = await tool.probe(annotated)
            video = TaskVideo(**vars(found.info), name=video.name, path=found.path)
        fps, frames = await tool.count(video.path)
        return replace(video, fps=fps, frames=frames)

    async def _look(self, calls: Sequence[CallAttempt], video: TaskVideo, *, budget: bool) -> list[Outcome]:
        with self._working():
            outcomes = self._episode.outcomes[-1]
            place = slice(len(outcomes), len(outcomes) + len(calls))
            outcomes.extend([None] * len(calls))  # they stand in the order in which the agent made them
            if not self._frames_under_way:  # calls side by side wait together
                self._frames_since = monotonic()
            self._frames_under_way += 1
            try:
                run, sample = self._runner.call_runner.run, self.task.index
                found = await self._wait_for(
                    asyncio.gather(*(run(call, video.path, video, sample=sample, budget=budget) for call in calls))
                )
            finally:
                self._frames_under_way -= 1
                if not self._frames_under_way:
                    self._episode.frames_s += monotonic() - self._frames_since
            outcomes[place] = found
            return found

    async def _wait_for(self, work: Awaitable[T]) -> T:
        """Wait for it in a task of its own, which ends with the sample, also where the agent does not wait for it."""

        async def run() -> T:
            return await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await task

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Around all that the agent asks for."""
        if self._failure is not None:
            raise self._failure
        if self._over:
            raise AgentFaultError("the sample is over")
        try:
            yield
        except (BadRequestError, VideoError):  # what an agent may answer
            raise
        except asyncio.CancelledError:  # by a timeout of its own; where the run is cancelled, `play` raises that
            if not self._over:
                self._failure = self._failure or AgentFaultError("the agent cancelled what it had asked for")
            raise
        except Exception as failure:
            self._failure = self._failure or failure
            raise

    async def play(self) -> None:
        """Run the agent to its end. A failure that is not the model's is raised; the episode then holds the rounds that
        were completed."""
        # In a task of its own, what the agent makes of being cancelled does not reach the run.
        agent, timeout_s = self._runner.agent, self._runner.timeout_s
        task = asyncio.create_task(self._run(agent))
        try:
            while not task.done():
                waiting_s = 0 if self._asked_at is None else monotonic() - self._asked_at
                left_s = self._began_at + waiting_s + timeout_s - monotonic()
                if left_s <= 0:
                    raise AgentFaultError(f"the agent did not end within {timeout_s:g} s (--sample-timeout)")
                await asyncio.wait({task}, timeout=None if math.isinf(left_s) else left_s)
        finally:
            self._over = True
            under_way = list(self._tasks)
            await _end(task, *under_way)
            with suppress(AgentFaultError):
                self._episode.messages = self._next_request()
        self._conclude(task, agent, under_way=bool(under_way))

    async def _run(self, agent: Agent) -> object:
        try:
            return await agent.run(self)
        except SystemExit as error:  # it would end the run
            raise AgentFaultError(f"the agent called sys.exit({error.code!r:.40})") from error

    def _conclude(self, task: asyncio.Task[object], agent: Agent, *, under_way: bool) -> None:
        error = None if task.cancelled() else task.exception()
        if self._failure is not None:
            error = self._failure
        elif task.cancelled():
            error = AgentFaultError("the agent cancelled itself")
        elif error is None and under_way:
            error = AgentFaultError("the agent ended while it still waited for a reply or for frames")
        if isinstance(error, TurnsOverError):
            self._episode.stop(MAX_TURNS_EXCEEDED)
        elif isinstance(error, BadRequestError) and self._episode.refusals:
            self._episode.refusal = self._episode.refusals.pop().detail
            self._episode.stop(BAD_REQUEST)
        elif error is None:
            self._end_with(task.result())
        elif self._failure is not None:
            raise self._failure
        elif isinstance(error, (AgentFaultError, VideoError, PromptError)):
            raise error
        else:
            raise AgentFaultError(describe_fault(error, agent)) from error

    def _end_with(self, end: object) -> None:
        if isinstance(end, Answer) and isinstance(end.text, str):
            self._episode.stop(ANSWER_FOUND if end.text else NO_ANSWER_NO_TOOL_CALL, answer=end.text)
        elif isinstance(end, Stop) and isinstance(end.reason, str):
            self._episode.stop(end.reason)
        else:
            raise AgentFaultError(f"the agent's run gave {end!r:.80}: it must end with Answer(text) or Stop(reason)")


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """End the tasks, also one that catches its cancellation."""
    left = {task for task in tasks if not task.done()}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=END_S)
    for task in left:
        with suppress(RuntimeError):
            work = task.get_coro()
            if isinstance(work, Coroutine):
                work.close()
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=END_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # asyncio complains of errors that nobody looks at


def _as_json(value: Any, what: str, level: int = 0) -> Any:
    """A copy of what can be sent as JSON and written to a record. Raises AgentFaultError for what cannot."""
    if isinstance(value, (dict, list, tuple)) and level == MOST_LEVELS // 2:
        raise AgentFaultError(f"{what} cannot be sent as JSON: lists and objects are nested too deep")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise AgentFaultError(f"{what} cannot be sent as JSON: a key is no text")
        return {key: _as_json(part, what, level + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(part, what, level + 1) for part in value]
    if value is None or isinstance(value, (str, bool)) or (is_number(value) and abs(value) <= sys.float_info.max):
        return value
    shown = "a number beyond all floats" if isinstance(value, int) else f"{value!r:.80} ({type(value).__name__})"
    raise AgentFaultError(f"{what} cannot be sent as JSON: it holds {shown}")


def describe_fault(error: BaseException, agent: Agent) -> str:
    """The error with the line of the agent at which it happened."""
    places = traceback.extract_tb(error.__traceback__)
    harness = str(Path(eva.__file__).parent / "agent")
    own = [place for place in places if not place.filename.startswith(harness)] or places
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(agent).__name__}: {type(error).__name__}: {error}{where}"
