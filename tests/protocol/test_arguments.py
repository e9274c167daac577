"""A call's arguments as numbers: strings and clock times are read, and what is not a number is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from eva.protocol.arguments import FrameRequest, UnusableArgumentError, read_request

CALL = {"start_time": 0, "end_time": 1, "nframes": 2}
NOT_NUMBERS: list[object] = [
    None, [], {}, [1], "", " ", "many", "-", ".", "e5", "0x10", "1__0", "1,5", "4 frames", "NaN", "inf", "1e999",
    "9" * 5000,
]  # fmt: skip


def start_s(value: Any) -> int | float:
    """The time that `value` is read as; the end is read by the same rule."""
    request = read_request(CALL | {"start_time": value, "end_time": value})
    assert repr(request.start_s) == repr(request.end_s)
    return request.start_s


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3), (3.5, 3.5), (-1, -1), ("3", 3), ("-3", -3), ("+3", 3), (" 7\n", 7), ("0.5", 0.5), (".5", 0.5),
        ("5.", 5.0), ("-0.25", -0.25), ("1e2", 100.0), ("1E+2", 100.0), ("2.5e-1", 0.25), ("9" * 400, int("9" * 400)),
        ("1_000", 1000), ("٣", 3), ("-٣", -3), ("1_0.5", 10.5), (" -1e2 ", -100.0),
    ],
)  # fmt: skip
def test_a_string_that_reads_as_a_number_is_that_number(value: Any, number: float) -> None:
    for read in (start_s(value), read_request(CALL | {"nframes": value}).nframes):
        assert (read, type(read)) == (number, type(number))
    assert read_request(CALL | {"resize": value}).resize == number


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("00:10", 10.0), (" 1:05 ", 65.0), ("1:02:03", 3723.0), ("10:00:00", 36000.0), ("1:30.5", 90.5),
        ("1:30.", 90.0), ("99:99", 6039.0), ("1:2:3:4", 223384.0), ("1.5:00", 90.0), ("0:1e0", 1.0), ("1:-5", 55.0),
    ],
)  # fmt: skip
def test_a_clock_time_is_its_seconds(value: str, seconds: float) -> None:
    assert start_s(value) == seconds


@pytest.mark.parametrize(
    "value", [*NOT_NUMBERS, "-1:00", "1:", ":1", "1:x", "nan:1", "9" * 400 + ":00", "0:" * 9999 + "0"]
)
def test_a_time_that_is_not_a_number_is_none(value: Any) -> None:
    assert not math.isfinite(start_s(value))


@pytest.mark.parametrize("value", [-1e-5, -1e20, -1.5e-7, "-1e-5", "-1E5", "-5.", "-1_0"])
def test_a_negative_time_that_the_references_tool_takes_for_an_option_is_none(value: Any) -> None:
    assert not math.isfinite(start_s(value))


@pytest.mark.parametrize("value", [1e-5, 1e20, -0.0, -0.5, -3, -(10**20), -12345.678])
def test_any_other_time_is_that_number(value: Any) -> None:
    assert repr(start_s(value)) == repr(value)


@pytest.mark.parametrize("value", [*NOT_NUMBERS, "00:10"])
def test_a_number_of_frames_that_is_not_a_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(UnusableArgumentError, match=r"^nframes is not a number: "):
        read_request(CALL | {"nframes": value})


@pytest.mark.parametrize("value", [*NOT_NUMBERS[1:], "00:10"])
def test_a_ratio_that_is_not_a_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(UnusableArgumentError, match=r"^resize is not a number: "):
        read_request(CALL | {"resize": value})


def test_the_refusal_quotes_the_start_of_a_long_argument() -> None:
    with pytest.raises(UnusableArgumentError) as caught:
        read_request(CALL | {"nframes": "many " * 1000})
    assert str(caught.value) == f"nframes is not a number: {('many ' * 1000)[:80]!r}"


def test_an_absent_or_null_ratio_is_1() -> None:
    assert read_request(CALL) == read_request(CALL | {"resize": None}) == FrameRequest(0, 1, 2, 1.0)


def test_a_float_number_of_frames_stays_a_float_for_the_budget() -> None:
    assert isinstance(read_request(CALL | {"nframes": 4.0}).nframes, float)
    assert isinstance(read_request(CALL | {"nframes": "4.0"}).nframes, float)
