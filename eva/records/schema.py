"""The record: what one line of a cache or a result says, and what a sample fills. Its fields are its keys, in the order
of the line.

`read_record` takes any line that this harness, its earlier versions or the reference wrote. A field that is missing or
of a wrong kind is None or empty, or is kept as text; only what is no JSON object, or has no index, is no record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from typing import Any, TypeVar

from eva.json_text import is_number, items, mapping, number, parse_json, text
from eva.protocol.budget import Budgeted
from eva.protocol.option import count_options
from eva.protocol.reply import Usage
from eva.records.outcome import Outcome, derive_failure
from eva.records.read_transcript import find_question, find_video_length_s

# Written into each new record. The records of the reference have no number, and those of our versions before 1 neither.
SCHEMA = 1
# Up to here a float counts exactly; a larger count is not one.
_MAX_COUNT = 2**53

# The kinds of fields; _READERS takes a stranger's value for each.
Number = int | float | None  # finite
Count = int | float | None  # not negative, and exact
Numbers = Sequence[Number]
Duration = int | float | None  # in seconds, of a video that can be
Transcript = str | tuple[Any, ...]
Paths = tuple[str, ...]  # empty for what is not a path
T = TypeVar("T")


@dataclass(frozen=True)
class Waited:
    """Where the time of a sample went, in seconds. The rest of it is the harness's own."""

    # Until it was its turn at the server: the limit of requests under way, retries, outages.
    seat_s: Number
    # For the replies.
    server_s: Number
    # For the video to be opened and for frames.
    frames_s: Number


@dataclass(frozen=True)
class Refusal:
    """What the server said to a request that it refused, where the agent went on; `after` so many replies."""

    after: int
    detail: str


@dataclass(frozen=True)
class Executed:
    """What the frame tool did, as the tool says it. Where it does not say, a field is None and is not written."""

    # The window after clamping, in seconds.
    start_s: Number = None
    end_s: Number = None
    # Of the frames, counted in the order in which the video shows them.
    indices: Numbers | None = None
    # Of the decoded frames, in seconds from the start of the stream.
    times_s: Numbers | None = None
    # Of the frames, in pixels.
    width: Number = None
    height: Number = None
    decoder: str | None = None
    # Wall time of the call, which the harness measures.
    seconds: Number = None


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
    frames: Paths
    # Visual tokens of the call; 0 where there was no budget step.
    tokens: Number
    # The name of the error in the stop reason, and the same for a person; None if the call worked.
    error: str | None
    reason: str | None
    # The second that each frame's label named to the model, empty where the agent did not label them so; None in
    # records without a schema number.
    labels_s: tuple[int, ...] | None = None


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
    # What the server took out of the reply as reasoning.
    reasoning: str = ""
    # The native tool calls as JSON objects with `id`, `name` and `arguments`; None where there are none.
    tool_calls: list[Any] | None = None
    # The messages of the request as the record's are, where what the agent sent next does not begin with them.
    request: Transcript = ""


@dataclass(frozen=True)
class Record:
    """One sample. The agent's room writes it when the sample ends; fields with a default are additions to the
    reference's, and are not written where they hold the default."""

    # Of the question, from the annotation.
    index: int
    # The paths of the videos, from the annotation; the first one is shown.
    videos: tuple[str, ...]
    # The conversation as text, without image tokens, or the messages themselves where the run had no tokenizer; empty
    # for an exception, which is written as an empty list.
    messages: Transcript
    # The ground truth, from the annotation.
    gt: str
    # What the agent answered; empty where it did not answer.
    answer: str
    # Why the sample ended: eva/protocol/stop_reasons.py.
    stop_reason: str
    # Completed replies; 0 for an exception.
    num_rounds: Count
    # Tokens of the last request and its reply; 0 for an exception.
    total_tokens: Count
    # Over all tool calls as executed; 0 for an exception.
    estimated_visual_tokens: Count
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
    video_duration_s: Duration = None
    # The completed rounds; None in the reference's records.
    trajectory: Sequence[Round] | None = None
    # The calls that the agent made before the first reply.
    opening: Sequence[Call] | None = None
    # Wall time of the sample.
    seconds: Count = None
    # The question as it was asked, stripped; of older records as the transcript shows it.
    question: str = ""
    # SCHEMA of the version that wrote the record; None in the reference's records, and in our older ones.
    schema: int | None = None
    # The agent that played; empty for EVA.
    agent: str = ""
    # Which part of `seconds` was waiting; None in older records.
    waited: Waited | None = None
    # The requests that the server refused, and after which the agent went on.
    refusals: tuple[Refusal, ...] = ()

    @property
    def rounds(self) -> Sequence[Round]:
        """The completed rounds; none where the record does not say them."""
        return self.trajectory or ()

    @property
    def looks(self) -> Sequence[Call]:
        """The calls that the agent made before the first reply."""
        return self.opening or ()

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
            options=count_options(self.question),
            visual_tokens=self.estimated_visual_tokens,
            agent=self.agent or "eva",
        )


# A key of the annotation with one of these names is not carried.
OWN_KEYS = frozenset(field.name for field in fields(Record)) - {"extra"}
# What is judged, with what stands for a missing key. The score script of the reference reads them in this way: a null
# is the text "None".
_JUDGED = {"gt": "", "answer": "", "stop_reason": "missing_stop_reason"}
# What an older record has under these names is the annotation's.
_SINCE_SCHEMA_1 = frozenset({"question", "schema", "opening", "agent", "waited", "refusals"})


def read_record(line: object, *, default_index: int | None = None) -> Record:
    """The record in a line, or in the JSON value of one.

    `default_index` stands for an index that is missing or no integer. Raises ValueError for what is not JSON, not an
    object, or has no index.
    """
    value = parse_json(line) if isinstance(line, (bytes, str)) else line
    if not isinstance(value, dict):
        raise ValueError("a record must be a JSON object")
    stated = value.get("index")
    index = stated if type(stated) is int else default_index
    if index is None:
        raise ValueError(f"'index' must be an integer, not {stated!r:.80}")
    return _read_record(value, index)


def _read_record(value: Mapping[str, Any], index: int) -> Record:
    found = _read_fields(Record, value)
    derived: dict[str, Any] = {name: str(value.get(name, missing)) for name, missing in _JUDGED.items()}
    own = OWN_KEYS
    if found["schema"] is None:
        derived |= {"question": find_question(transcript(found["messages"]))}
        derived |= {"opening": None, "agent": "", "waited": None, "refusals": ()}
        own = OWN_KEYS - _SINCE_SCHEMA_1
    if found["video_duration_s"] is None:
        derived["video_duration_s"] = find_video_length_s(transcript(found["messages"]))
    if value.get("failure", "") is None:  # the record says that it is nobody's
        derived["failure"] = ""
    extra = {key: held for key, held in value.items() if key not in own}
    return Record(**{**found, **derived, "index": index, "extra": extra})


class _Unread(Sequence[T]):
    """The parts of a record that was read. Each is typed when it is asked for: most of a record's bytes are theirs, and
    no score needs them."""

    def __init__(self, kind: type[T], values: list[Any]) -> None:
        self._kind, self.values = kind, values

    @cached_property
    def _parts(self) -> tuple[T, ...]:
        return tuple(_read(self._kind, value) for value in self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: Any) -> Any:
        return self._parts[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._parts == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def _read(kind: type[T], value: object) -> T:
    return kind(**_read_fields(kind, mapping(value)))


def _read_fields(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: read(value.get(name)) for name, read in _readers(kind)}


@cache
def _readers(kind: type) -> list[tuple[str, Callable[[Any], Any]]]:
    return [(one.name, _READERS[str(one.type)]) for one in fields(kind)]


def record_json(record: Record) -> dict[str, Any]:
    """A record as the JSON object that is written."""
    return {**to_json(record), "messages": record.messages or []}


def to_json(value: Any) -> Any:
    """A part of a record as JSON values; a field that holds its default is left out."""
    if isinstance(value, _Unread):
        return value.values
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


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def transcript(messages: object) -> str:
    """The conversation as text; empty where the record holds the messages themselves."""
    return messages if isinstance(messages, str) else ""


def _duration_s(value: object) -> Number:
    return value if is_number(value) and 0.001 <= value <= 1e9 else None


def _count(value: object) -> Count:
    return value if is_number(value) and 0 <= value <= _MAX_COUNT else None


def _numbers(value: object) -> Numbers | None:
    return tuple(map(number, value)) if isinstance(value, list) else None


def _integers(value: object) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(type(one) is int for one in value) else None


def _budgeted(value: object) -> Budgeted | None:
    numbers = [number(mapping(value).get(one.name)) for one in fields(Budgeted)]
    return None if None in numbers else Budgeted(*numbers)  # type: ignore[arg-type]


def _sequence(kind: type[T]) -> Callable[[object], Sequence[T] | None]:
    return lambda value: _Unread(kind, value) if isinstance(value, list) else None


def _optional(kind: type[T]) -> Callable[[object], T | None]:
    return lambda value: _read(kind, value) if isinstance(value, dict) else None


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "Any": lambda value: value,
    "Mapping[str, Any]": mapping,
    "list[Any] | None": lambda value: value if isinstance(value, list) else None,
    "int": lambda value: value,
    "int | None": lambda value: value if type(value) is int else None,
    "str": text,
    "str | None": _text_or_none,
    "Transcript": lambda value: tuple(value) if isinstance(value, list) and value else transcript(value),
    "tuple[str, ...]": lambda value: tuple(map(str, items(value))),
    "Paths": lambda value: tuple(name if isinstance(name, str) else "" for name in items(value)),
    "tuple[int, ...] | None": _integers,
    "Number": number,
    "Numbers | None": _numbers,
    "Count": _count,
    "Duration": _duration_s,
    "Usage": lambda value: Usage(*(number(mapping(value).get(one.name)) for one in fields(Usage))),
    "Sequence[Round] | None": _sequence(Round),
    "Sequence[Call] | None": _sequence(Call),
    "tuple[Refusal, ...]": lambda value: tuple(_read(Refusal, one) for one in items(value)),
    "Waited | None": _optional(Waited),
    "Budgeted | None": _budgeted,
    "Executed | None": _optional(Executed),
    "tuple[Call, ...]": lambda value: tuple(_read(Call, one) for one in items(value)),
}
