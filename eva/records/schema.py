"""The record: what one line of a cache or a result says. Its fields are its keys, in the order of the line.

`read_record` takes any line that this harness, its earlier versions or the reference wrote. A field that is missing or
of a wrong kind is None or empty, or is kept as text; only what is no JSON object, or has no index, is no record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

from eva.json_text import is_number, items, mapping, number, parse_json, text
from eva.protocol.arguments import FrameRequest, UnusableArgumentError, read_request
from eva.protocol.budget import Budgeted
from eva.protocol.messages import requested_times
from eva.records.outcome import Outcome, derive_failure
from eva.records.read_transcript import find_question, find_video_length_s

# Written into each new record. The records of the reference have no number, and those of our versions before 1 neither.
SCHEMA = 1
# Up to here a float counts exactly; a larger count is not one.
_MAX_COUNT = 2**53
_MIN_DURATION_S, _MAX_DURATION_S = 0.001, 1e9

Number = int | float | None


@dataclass(frozen=True)
class Usage:
    """The tokens of one request and its reply, as the server counts them."""

    prompt_tokens: Number
    completion_tokens: Number
    total_tokens: Number

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Usage:
        return cls(*(number(value.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")))


@dataclass(frozen=True)
class Executed:
    """What the frame tool did, as the tool says it. Where it does not say, a field is None and is not written."""

    # The window after clamping, in seconds.
    start_s: Number = None
    end_s: Number = None
    # Of the frames, counted in the order in which the video shows them.
    indices: Sequence[Number] | None = None
    # Of the decoded frames, in seconds from the start of the stream.
    times_s: Sequence[Number] | None = None
    # Of the frames, in pixels.
    width: Number = None
    height: Number = None
    decoder: str | None = None
    # Wall time of the call, which the harness measures.
    seconds: Number = None

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Executed:
        return cls(
            start_s=number(value.get("start_s")),
            end_s=number(value.get("end_s")),
            indices=_numbers(value.get("indices")),
            times_s=_numbers(value.get("times_s")),
            width=number(value.get("width")),
            height=number(value.get("height")),
            decoder=_text_or_none(value.get("decoder")),
            seconds=number(value.get("seconds")),
        )


@dataclass(frozen=True)
class Call:
    """One tool call, from what was asked to what was shown."""

    # The arguments as the model wrote them; the model's own text where they are not JSON.
    asked: Any
    # After the budget step; None where there was none.
    budgeted: Budgeted | None
    # None where the tool gave no frames.
    executed: Executed | None
    # The paths of the frames, in the order in which the model got them; empty for what is no path.
    frames: tuple[str, ...]
    # Visual tokens of the call; 0 where there was no budget step.
    tokens: Number
    # The name of the error in the stop reason, and the same for a person; None if the call worked.
    error: str | None
    reason: str | None
    # The second that each frame's label named to the model; None in records without a schema number.
    labels_s: tuple[int, ...] | None = None

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Call:
        executed = value.get("executed")
        frames = tuple(name if isinstance(name, str) else "" for name in items(value.get("frames")))
        labels_s = tuple(label for label in items(value.get("labels_s")) if type(label) is int)
        return cls(
            asked=value.get("asked"),
            budgeted=_budgeted(mapping(value.get("budgeted"))),
            executed=Executed.read(executed) if isinstance(executed, dict) else None,
            frames=frames,
            tokens=number(value.get("tokens")),
            error=_text_or_none(value.get("error")),
            reason=_text_or_none(value.get("reason")),
            labels_s=labels_s if len(labels_s) == len(frames) and "labels_s" in value else None,
        )

    @cached_property
    def request(self) -> FrameRequest | None:
        """The arguments in numbers; None where they do not read as such."""
        try:
            return read_request(mapping(self.asked))
        except (KeyError, UnusableArgumentError):
            return None

    @property
    def times_s(self) -> Sequence[Number]:
        """The time of each frame; None for all where the tool did not give one per frame: which is whose is a guess."""
        times_s = (self.executed.times_s if self.executed else None) or ()
        return times_s if len(times_s) == len(self.frames) else [None] * len(self.frames)

    def find_labels_s(self, timestamps: str) -> Sequence[Number]:
        """The second that each frame's label named to the model, None where nothing tells it.

        An older record does not say it; then the run's setting `timestamps` tells which times these were.
        """
        if self.labels_s is not None:
            return self.labels_s
        return self.times_s if timestamps == "actual" else self._requested_times()

    def _requested_times(self) -> Sequence[Number]:
        start_s, end_s = (number(self.request.start_s), number(self.request.end_s)) if self.request else (None, None)
        try:
            if start_s is not None and end_s is not None:
                return requested_times(start_s, end_s, len(self.frames))
        except (OverflowError, ValueError):
            pass
        return [None] * len(self.frames)


@dataclass(frozen=True)
class Round:
    """One completed reply of the model."""

    # Verbatim.
    reply: str
    usage: Usage
    # Wall time of the request, its retries included.
    seconds: Number
    # As the server says it.
    finish_reason: str | None
    calls: tuple[Call, ...]

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Round:
        return cls(
            reply=text(value.get("reply")),
            usage=Usage.read(mapping(value.get("usage"))),
            seconds=number(value.get("seconds")),
            finish_reason=_text_or_none(value.get("finish_reason")),
            calls=tuple(Call.read(mapping(call)) for call in items(value.get("calls"))),
        )


@dataclass(frozen=True)
class Record:
    """One sample. The agent's room writes it when the sample ends; fields with a default are additions to the
    reference's, and are not written where they hold the default."""

    # Of the question, from the annotation.
    index: int
    # The paths of the videos, from the annotation; the first one is shown.
    videos: tuple[str, ...]
    # The conversation as text, without image tokens; empty for an exception, which is written as an empty list.
    messages: str
    # The ground truth, from the annotation.
    gt: str
    # What the agent answered; empty where it did not answer.
    answer: str
    # Why the sample ended: eva/protocol/stop_reasons.py.
    stop_reason: str
    # Completed replies; 0 for an exception.
    num_rounds: Number
    # Tokens of the last request and its reply; 0 for an exception.
    total_tokens: Number
    # Over all tool calls as executed; 0 for an exception.
    estimated_visual_tokens: Number
    # What failed, in the reference's words where it has words.
    error: str = ""
    # What the server said when it refused the request.
    error_detail: str = ""
    # The annotation's other keys, which stand among the record's own.
    extra: Mapping[str, Any] = field(default_factory=dict)
    # Whose failure it is that there is no answer: `model`, `sample`, `infrastructure`. None where the record does not
    # say: the agent answered, or the record is the reference's.
    failure: str | None = None
    # The file that was shown instead of the annotated one, below the video root.
    video_file: str = ""
    # The video's length; of older records the whole seconds that the opening message names.
    video_duration_s: Number = None
    # The completed rounds as JSON objects; `rounds` gives them typed. None in the reference's records.
    trajectory: Sequence[Any] | None = None
    # Wall time of the sample.
    seconds: Number = None
    # The question as it was asked, stripped; of older records as the transcript shows it.
    question: str = ""
    # SCHEMA of the version that wrote the record; None in the reference's records, and in our older ones.
    schema: int | None = None

    @cached_property
    def rounds(self) -> tuple[Round, ...]:
        """The completed rounds. They are read when they are asked for: most of a record's bytes are theirs, and no
        score needs them."""
        return tuple(Round.read(mapping(round_)) for round_ in self.trajectory or ())

    @cached_property
    def outcome(self) -> Outcome:
        """What the record counts for."""
        return Outcome(
            index=self.index,
            ground_truth=self.gt,
            answer=self.answer,
            stop_reason=self.stop_reason,
            num_rounds=self.num_rounds,
            total_tokens=self.total_tokens,
            error=self.error,
            video=self.videos[0] if self.videos else "",
            seconds=self.seconds,
            failure=derive_failure(self.stop_reason, self.answer) if self.failure is None else self.failure,
        )


# A key of the annotation with one of these names is not carried.
OWN_KEYS = frozenset(field.name for field in fields(Record)) - {"extra"}
# What an older record has under these names is the annotation's.
_SINCE_SCHEMA_1 = frozenset({"question", "schema"})


def read_record(line: object, *, default_index: int | None = None) -> Record:
    """The record in a line, or in the JSON value of one.

    Raises ValueError for what is not JSON, not an object, or has no integer index (nor `default_index` in its place).
    """
    value = parse_json(line) if isinstance(line, (bytes, str)) else line
    if not isinstance(value, dict):
        raise ValueError("a record must be a JSON object")
    index = value.get("index", default_index)
    if type(index) is not int:
        raise ValueError(f"'index' must be an integer, not {index!r:.80}")
    return _read_record(value, index)


def _read_record(value: Mapping[str, Any], index: int) -> Record:
    get = value.get
    schema = value["schema"] if type(get("schema")) is int else None
    own = OWN_KEYS if schema is not None else OWN_KEYS - _SINCE_SCHEMA_1
    messages, trajectory = get("messages"), get("trajectory")
    messages = messages if isinstance(messages, str) else ""
    return Record(
        index=index,
        videos=tuple(map(str, items(get("videos")))),
        messages=messages,
        gt=text(get("gt")),
        answer=text(get("answer")),
        stop_reason=text(get("stop_reason")),
        num_rounds=_count(get("num_rounds")),
        total_tokens=_count(get("total_tokens")),
        estimated_visual_tokens=_count(get("estimated_visual_tokens")),
        error=text(get("error")),
        error_detail=text(get("error_detail")),
        extra={key: held for key, held in value.items() if key not in own},
        failure=text(value["failure"]) if "failure" in value else None,
        video_file=text(get("video_file")),
        video_duration_s=_duration_s(get("video_duration_s"), messages),
        trajectory=trajectory if isinstance(trajectory, list) else None,
        seconds=_count(get("seconds")),
        question=find_question(messages) if schema is None else text(get("question")),
        schema=schema,
    )


def record_json(record: Record) -> dict[str, Any]:
    """A record as the JSON object that is written."""
    return {**to_json(record), "messages": record.messages or []}


def to_json(value: Any) -> Any:
    """A part of a record as JSON values; a field that holds its default is left out."""
    if isinstance(value, tuple):
        return [to_json(part) for part in value]
    if not is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for one in fields(value):
        held = getattr(value, one.name)
        if one.name == "extra":
            found |= held
        elif held != one.default:
            found[one.name] = to_json(held)
    return found


def _budgeted(value: Mapping[str, Any]) -> Budgeted | None:
    nframes, resize, tokens = (number(value.get(name)) for name in ("nframes", "resize", "tokens"))
    if nframes is None or resize is None or tokens is None:
        return None
    return Budgeted(nframes, resize, int(tokens))


def _numbers(value: object) -> tuple[Number, ...] | None:
    return tuple(map(number, value)) if isinstance(value, list) else None


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _count(value: object) -> Number:
    """None for what cannot be a count: a text, NaN, less than 0."""
    return value if is_number(value) and 0 <= value <= _MAX_COUNT else None


def _duration_s(value: object, messages: str) -> Number:
    if is_number(value) and _MIN_DURATION_S <= value <= _MAX_DURATION_S:
        return value
    return find_video_length_s(messages)
