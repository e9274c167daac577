"""The record: what one line of a cache or a result says. Its fields are the keys, in the order of the line;
docs/records.md says what each means.

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

    seat_s: Number
    server_s: Number
    frames_s: Number


@dataclass(frozen=True)
class Refusal:
    """What the server said to a request that it refused, where the agent went on; `after` so many replies."""

    after: int
    detail: str


@dataclass(frozen=True)
class Executed:
    """What the frame tool did, as the tool says it; `seconds` are the wall time, which the harness measures."""

    start_s: Number = None
    end_s: Number = None
    indices: Numbers | None = None
    times_s: Numbers | None = None
    width: Number = None
    height: Number = None
    decoder: str | None = None
    seconds: Number = None


@dataclass(frozen=True)
class Call:
    """One tool call, from what was asked to what was shown."""

    asked: Any
    budgeted: Budgeted | None
    executed: Executed | None
    frames: Paths
    tokens: Number
    error: str | None
    reason: str | None
    # None in records without a schema number.
    labels_s: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Round:
    """One completed reply of the model."""

    reply: str
    usage: Usage
    seconds: Number
    finish_reason: str | None
    calls: tuple[Call, ...]
    reasoning: str = ""
    tool_calls: list[Any] | None = None
    request: Transcript = ""


@dataclass(frozen=True)
class Record:
    """One sample. Fields with a default are additions to the reference's, and are not written where they hold it."""

    index: int
    videos: tuple[str, ...]
    # Empty for an exception, which is written as an empty list.
    messages: Transcript
    gt: str
    answer: str
    stop_reason: str
    num_rounds: Count
    total_tokens: Count
    estimated_visual_tokens: Count
    error: str = ""
    error_detail: str = ""
    # The annotation's other keys, which stand among the record's own.
    extra: Mapping[str, Any] = field(default_factory=dict)
    # None where the record does not say: the agent answered, or the record is the reference's.
    failure: str | None = None
    video_file: str = ""
    # Of older records the whole seconds that the opening message names.
    video_duration_s: Duration = None
    # JSON, which `rounds` reads when they are asked for: it is most of a record, and no score needs it.
    trajectory: list[Any] | None = None
    # The same of `looks`.
    opening: list[Any] | None = None
    seconds: Count = None
    # Of older records as the transcript shows it.
    question: str = ""
    schema: int | None = None
    agent: str = ""
    waited: Waited | None = None
    refusals: tuple[Refusal, ...] = ()

    @cached_property
    def rounds(self) -> tuple[Round, ...]:
        """The completed rounds; none where the record does not say them."""
        return tuple(_read(Round, one) for one in self.trajectory or ())

    @cached_property
    def looks(self) -> tuple[Call, ...]:
        """The calls that the agent made before the first reply."""
        return tuple(_read(Call, one) for one in self.opening or ())

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
            replies_cut=sum(round_.finish_reason == "length" for round_ in self.rounds),
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
    found = _read_fields(Record, value)
    found |= {name: str(value.get(name, missing)) for name, missing in _JUDGED.items()}
    own, said = OWN_KEYS, transcript(found["messages"])
    if found["schema"] is None:
        found |= {"question": find_question(said), "opening": None, "agent": "", "waited": None, "refusals": ()}
        own = OWN_KEYS - _SINCE_SCHEMA_1
    if found["video_duration_s"] is None:
        found["video_duration_s"] = find_video_length_s(said)
    if value.get("failure", "") is None:  # the record says that it is nobody's
        found["failure"] = ""
    extra = {key: held for key, held in value.items() if key not in own}
    return Record(**{**found, "index": index, "extra": extra})


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


def transcript(messages: object) -> str:
    """The conversation as text; empty where the record holds the messages themselves."""
    return messages if isinstance(messages, str) else ""


def _integers(value: object) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(type(one) is int for one in value) else None


def _budgeted(value: object) -> Budgeted | None:
    numbers = [number(mapping(value).get(one.name)) for one in fields(Budgeted)]
    return None if None in numbers else Budgeted(*numbers)  # type: ignore[arg-type]


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "Any": lambda value: value,
    "Mapping[str, Any]": mapping,
    "list[Any] | None": lambda value: value if isinstance(value, list) else None,
    "int": lambda value: value,
    "int | None": lambda value: value if type(value) is int else None,
    "str": text,
    "str | None": lambda value: None if value is None else str(value),
    "Transcript": lambda value: tuple(value) if isinstance(value, list) and value else transcript(value),
    "tuple[str, ...]": lambda value: tuple(map(str, items(value))),
    "Paths": lambda value: tuple(name if isinstance(name, str) else "" for name in items(value)),
    "tuple[int, ...] | None": _integers,
    "Number": number,
    "Numbers | None": lambda value: tuple(map(number, value)) if isinstance(value, list) else None,
    "Count": lambda value: value if is_number(value) and 0 <= value <= _MAX_COUNT else None,
    "Duration": lambda value: value if is_number(value) and 0.001 <= value <= 1e9 else None,
    "Usage": lambda value: Usage(*(number(mapping(value).get(one.name)) for one in fields(Usage))),
    "tuple[Refusal, ...]": lambda value: tuple(_read(Refusal, one) for one in items(value)),
    "Waited | None": lambda value: _read(Waited, value) if isinstance(value, dict) else None,
    "Budgeted | None": _budgeted,
    "Executed | None": lambda value: _read(Executed, value) if isinstance(value, dict) else None,
    "tuple[Call, ...]": lambda value: tuple(_read(Call, one) for one in items(value)),
}
