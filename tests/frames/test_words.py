"""A call as the words of a command line: which arguments of the model the frame tool gets, and in which order."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from eva.frames.tool import CallFailedError, ToolSettings
from eva.option_words import full_names, in_full, is_option
from eva.protocol.arguments import FrameRequest
from eva.video import REFERENCE_OPTIONS

VIDEO = Path("/videos/clip.mp4")
HARNESS = ["--factor=28", "--save-root=/frames"]


def words(asked: dict[str, Any], *, fallback: bool = False, backend: str = "auto") -> list[str]:
    settings = ToolSettings(Path("/tools/frames.py"), Path("/frames"), backend, fallback, 600)
    return settings.arguments(VIDEO, FrameRequest(0, 4.5, 2, 1.0, asked))


def test_with_fallback_the_tool_gets_four_arguments_of_the_model_and_clamps() -> None:
    numbers = ["--start_time=0", "--end_time=4.5", "--nframes=2", "--resize=1.0"]
    for asked in ({}, {"start": 3, "why": "\0", "video_path": "x"}):
        assert words(asked, fallback=True) == [f"--video_path={VIDEO}", *numbers, *HARNESS, "--clamp"]


def test_the_backend_of_the_model_is_passed_on_and_one_of_the_user_stands_behind_it() -> None:
    asked = {"b": "decord", "start_time": 0, "end_time": 4.5, "nframes": 2, "resize": 1.0}
    assert words(asked)[:3] == [f"--video_path={VIDEO}", "--backend=decord", "--start_time=0"]
    assert [word for word in words(asked, backend="av") if "backend" in word] == ["--backend=decord", "--backend=av"]
    assert not [word for word in words(asked, fallback=True) if "backend" in word]


def test_without_fallback_each_argument_stands_where_the_model_has_it_and_an_absent_resize_last() -> None:
    asked = {"res": 0.5, "end_time": "0:04.5", "start": True, "start_time": "0", "nframes": "2", "zoom": [1, None]}
    passed_on = ["--resize=0.5", "--end_time=4.5", "--start=True", "--start_time=0", "--nframes=2", "--zoom=[1, None]"]
    assert words(asked) == [f"--video_path={VIDEO}", *passed_on, "--resize=1.0", *HARNESS]


@pytest.mark.parametrize(
    "asked",
    [
        {"video_path": "x"}, {"video-path": "x"}, {"video-p": "x"}, {"save-dir": "x"}, {"save-d": "x"}, {"save": "x"},
        {"clamp": True}, {"c": ""}, {"help": 1}, {"h": 0.5}, {"format": "bmp"}, {"worker": 1}, {"backend": "av"},
        {"b": "AUTO"}, {"backend": "like-decord"}, {"": 1}, {"-i": "x"}, {"resize=0.5": ""}, {"a b": 1}, {"sta": 1},
        {"e": 1}, {"start": -1e-5},
        {"end": "-1:00"}, {"why": "--clamp"}, {"why": "\0"}, {"why": "\ud800"}, {"why": "x" * 20_000},
    ],
    ids=ascii,
)  # fmt: skip
def test_what_no_model_may_say_and_what_argparse_refuses_fails_the_call(asked: dict[str, Any]) -> None:
    with pytest.raises(CallFailedError):
        words(asked)


TEXTS = [
    "-1", "-0.5", "-.5", "-5.", "-1e-05", "-1e+20", "-1_0", "-٣", "-", "--", "", "x", "-x", "-x y", "- 1", "-1:00",
    "-1\n", "-1e5\n", " -1e5", "--start", "--sta", "-inf",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the rule is that of argparse up to Python 3.12")
def test_a_word_is_an_option_where_argparse_takes_it_for_one(text: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument("--start")
    parser.add_argument("--save-root")
    if text == "--":  # the end of the options, and no value either
        assert is_option(text)
        return
    try:
        parser.parse_args(["--start", text, "--save-root", "x"])
        value = True
    except argparse.ArgumentError:
        value = False
    assert is_option(text) is not value


def test_a_beginning_counts_where_it_is_that_of_one_option() -> None:
    for number, option in enumerate(REFERENCE_OPTIONS):
        assert full_names(option, REFERENCE_OPTIONS) == [option]
        for end in range(3, len(option)):
            others = [other for other in REFERENCE_OPTIONS if re.match(re.escape(option[:end]), other)]
            owed = f"{option}=1" if others == [option] else f"{option[:end]}=1"
            if option[:end] not in REFERENCE_OPTIONS:
                assert in_full(["-i", f"{option[:end]}=1", str(number)], REFERENCE_OPTIONS)[1] == owed
