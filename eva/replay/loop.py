"""One record, played again by the ordinary loop: its replies take the model's place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eva.agent.play import AgentFaultError, Episode, Sample
from eva.agent.record import episode_record, exception_record, recorded_reply
from eva.agent.sample import SampleRunner
from eva.agent.tool_call import CallRunner, CallSettings
from eva.dataset.items import Item
from eva.endpoint.completion import Reply
from eva.endpoint.errors import BadRequestError
from eva.errors import EvaError
from eva.frames.tool import (
    CallFailedError,
    Extraction,
    FoundVideo,
    FrameTool,
    FrameToolError,
)
from eva.protocol.arguments import FrameRequest, UnusableArgumentError, read_request
from eva.protocol.budget import Budgeted, fit_budget
from eva.protocol.messages import Message, PromptError, VideoInfo
from eva.protocol.reply import Calls, Usage, parse_reply
from eva.protocol.stop_reasons import BAD_REQUEST
from eva.records.read_transcript import find_replies, find_resolution, find_video_length_s
from eva.records.schema import Record, Refusal, read_record, record_json, transcript
from eva.video.sampling import SelectionError, Window, output_size, sample_times

# The stop reason of a replay in which the loop asks for a reply that the record does not have.
GOES_ON = "the loop goes on"
# Stands for each frame that is not made.
NO_FILE = Path("/not-made")
FRAME_MARK = "<|vision_start|>"
# The usual ratios of the longer side to the shorter one are tried first.
RATIOS = (16 / 9, 4 / 3, 1, 3 / 2, 2, 64 / 27)
MOST_RATIO = 8
MAX_SIDE = 16384


class NoFurtherReplyError(EvaError):
    """The loop asks for a reply that the record does not have."""


@dataclass
class PlanningTool(FrameTool):
    """A frame tool that says how many frames a call gives, with `--fallback`, and makes none.

    It refuses what the real one refuses for its arguments. That a file cannot be decoded is not known here.
    """

    video: VideoInfo

    async def probe(self, annotated: Path) -> FoundVideo:
        """See FrameTool."""
        return FoundVideo(annotated, 0, 0, self.video)

    async def count(self, video: Path) -> tuple[float, int]:
        raise FrameToolError(f"the rate and the number of frames of {video} are known with its file alone")

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        """See FrameTool; each frame is a name without a file."""
        try:
            places = sample_times(Window(call.start_s, call.end_s), int(call.nframes))
            output_size(self.video.width, self.video.height, resize=call.resize, factor=self.settings.factor)
        except SelectionError as error:
            raise CallFailedError(str(error)) from error
        return Extraction((NO_FILE,) * len(places), 0.0, {})


async def replay(record: Record, item: Item, found: FoundVideo, runner: SampleRunner, *, cut_frames: bool) -> Record:
    """What the loop makes of the replies of a record, as it is read from a file. Raises FrameToolUnusableError."""
    tool, settings = runner.call_runner.tool, runner.call_runner.settings
    calls = runner.call_runner if cut_frames else CallRunner(PlanningTool(tool.settings, found.info), settings)
    runner = replace(runner, call_runner=calls, sends_frames=False)
    recorded = recorded_replies(record, item)
    replies = iter(recorded)
    refusals = deque(record.refusals)
    if record.stop_reason == BAD_REQUEST:  # only the server knows why
        refusals.append(Refusal(len(recorded), record.error_detail))
    episode = Episode()

    async def complete(_: Sequence[Message], __: Mapping[str, Any]) -> Reply:
        if refusals and refusals[0].after <= len(episode.rounds):
            raise BadRequestError(refusals.popleft().detail)
        reply = next(replies, None)
        if reply is None:
            raise NoFurtherReplyError
        return reply

    try:
        try:
            await Sample(item, found, episode, runner, complete).play()
        except NoFurtherReplyError:
            episode.stop(GOES_ON)
        replayed = episode_record(item, episode, runner.transcribe)
    except (PromptError, FrameToolError, AgentFaultError) as error:
        replayed = exception_record(item, error, episode)
    finally:
        tool.release(item.index)
    # A count that cannot be one is read as unknown, also in the record.
    return read_record(record_json(replayed))


def recorded_replies(record: Record, item: Item) -> list[Reply]:
    """The replies, from the trajectory, or from the transcript in a record of the reference.

    A transcript does not say the tokens of a reply. Each then gets those that the record names for the last one.
    """
    if record.trajectory is not None:
        return list(map(recorded_reply, record.rounds))
    usage = Usage(None, None, record.total_tokens)
    return [Reply(text, usage, None) for text in find_replies(transcript(record.messages))[prompted_replies(item) :]]


def prompted_replies(item: Item) -> int:
    """How many assistant turns the prompt itself has."""
    return sum(turn["role"] == "assistant" for turn in item.prompt)


def infer_video(record: Record, item: Item, settings: CallSettings) -> VideoInfo | None:
    """The length and the size of a video without a file; None where the messages do not name the shorter side.

    The longer side decides how the budget cuts the calls: it is the first that explains the counts of tokens and of
    frames, or else one of them.
    """
    messages = transcript(record.messages)
    length_s, shorter = find_video_length_s(messages), find_resolution(messages)
    if length_s is None or shorter is None:
        return None
    replies, frames = recorded_replies(record, item), messages.count(FRAME_MARK)

    def explained(longer: int) -> int:
        fitted = list(_fit_calls(replies, longer, shorter, settings))
        as_many = sum(int(one.nframes) for one in fitted) == frames
        return as_many + (sum(one.tokens for one in fitted) == record.estimated_visual_tokens)

    usual = [round(shorter * ratio) for ratio in RATIOS]
    sides = [*usual, *range(shorter, min(shorter * MOST_RATIO, MAX_SIDE) + 1)]
    longer = next((side for needed in (2, 1) for side in sides if explained(side) >= needed), usual[0])
    # The opening names half a second less than the stream's length, cut to whole seconds.
    return VideoInfo(length_s + 0.5, longer, shorter)


def _fit_calls(replies: Sequence[Reply], longer: int, shorter: int, settings: CallSettings) -> Iterator[Budgeted]:
    """The calls of a record that have a budget, as it cuts them for a video of this size."""
    budget = {"max_visual_tokens": settings.max_visual_tokens, "maxp": settings.maxp, "side": settings.pixels_per_token}
    for reply in replies:
        action = parse_reply(reply.text)
        for call in action.calls if isinstance(action, Calls) else ():
            try:
                if call.arguments is not None and call.error is None:
                    asked = read_request(call.arguments)
                    yield fit_budget(asked.nframes, asked.resize, width=longer, height=shorter, **budget)
            except (UnusableArgumentError, OverflowError, ValueError):
                continue
