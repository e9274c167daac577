"""Whatever a model replies: a record, never a traceback, never a shell, never a file elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import FRAME_TOOL, make_video
from random_replies import REPLIES, STEM, a_reply

from eva.agent.sample import SampleRunner
from eva.agent.tool_call import CallRunner, CallSettings
from eva.agent.transcript import load_transcriber
from eva.agents.eva import Eva
from eva.dataset.items import Item
from eva.endpoint.completion import Reply
from eva.frames.tool import CallFailedError, Extraction, ToolSettings
from eva.frames.tools import CommandTool
from eva.frames.worker import Workers
from eva.protocol.arguments import FrameRequest
from eva.protocol.messages import Message
from eva.protocol.reply import Usage
from eva.records.cache import encode
from eva.records.schema import Record, read_record, record_json

# Calls for which the frame tool itself is started; the rest end where it would be.
REAL_CALLS = 16
MODELS_OWN = {
    "answer_found", "no_answer_no_tool_call", "no_valid_tool_call", "arguments_not_json", "no_start_or_end_time",
    "no_nframes", "call_frame_select_failed", "max_turns_exceeded",
}  # fmt: skip


@dataclass
class Watched(CommandTool):
    """The frame tool, for as many calls as `real` holds; the others are only remembered."""

    asked: list[FrameRequest] = field(default_factory=list)
    real: list[FrameRequest] = field(default_factory=list)

    async def extract(self, video: Path, call: FrameRequest, *, sample: int) -> Extraction:
        self.asked.append(call)
        telling = len(call.asked) > 4 or self.settings.fallback
        if len(self.real) == REAL_CALLS or not telling or call.nframes > 50 or call.resize > 4:
            raise CallFailedError("not started")
        self.real.append(call)
        return await super().extract(video, call, sample=sample)


@dataclass
class Fuzzed:
    """What became of the replies: for each the record as written, or what was wrong with it."""

    folder: Path
    tools: list[Watched] = field(default_factory=list)
    stop_reasons: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def judge(self, number: int, record: Record) -> None:
        line = encode(record_json(record)).decode("utf-8")
        if line.count("\n") != 1 or read_record(strict(line)).index != number:
            self.problems.append(f"reply {number}: the record is no line")
        self.stop_reasons.update(record.stop_reason.split("; "))
        if not set(record.stop_reason.split("; ")) <= MODELS_OWN or record.error:
            self.problems.append(f"reply {number}: {record.stop_reason}: {record.error}")


def strict(line: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(line, parse_constant=refuse)


def replying(text: str) -> Any:
    texts = iter((text, "<answer>B</answer>"))

    async def complete(messages: Sequence[Message], fields: Mapping[str, Any]) -> Reply:
        return Reply(next(texts), Usage(1, 1, 2), "stop")

    return complete


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: Path) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzz")
    make_video(folder / "videos" / f"{STEM}.mp4", frames=20)
    result = Fuzzed(folder)
    transcribe = load_transcriber(str(tokenizer_dir))

    async def run() -> None:
        for fallback in (True, False):
            settings = ToolSettings(FRAME_TOOL, folder / "frames", backend="auto", fallback=fallback, timeout_s=60)
            workers = Workers([sys.executable, str(FRAME_TOOL), "--worker"], 1, 60, 2**31)
            tool = Watched(settings, workers, folder / "videos", asyncio.Semaphore(2))
            result.tools.append(tool)
            call_runner = CallRunner(tool, CallSettings(12000, 720, "requested", "file"))
            runner = SampleRunner(Eva(), call_runner, transcribe, folder / "videos", 6)
            for number in range(int(fallback), REPLIES, 2):
                item = Item(number, (f"{STEM}.mp4",), ({"role": "user", "content": "Q?"},), "B")
                text = a_reply(number)
                record = await runner.run(item, replying(text))
                result.judge(number, record)
            await tool.close()

    here = Path.cwd()
    os.chdir(folder)
    try:
        asyncio.run(run())
    finally:
        os.chdir(here)
    yield result


def test_every_reply_ends_in_a_record_with_a_stop_reason_of_the_models_own(fuzzed: Fuzzed) -> None:
    assert fuzzed.problems[:5] == []


def test_the_replies_reach_every_stop_reason(fuzzed: Fuzzed) -> None:
    """Else the fuzz would prove nothing."""
    assert set(fuzzed.stop_reasons) >= MODELS_OWN - {"max_turns_exceeded"}
    assert min(fuzzed.stop_reasons[reason] for reason in fuzzed.stop_reasons) >= REPLIES / 500


def test_what_reaches_the_frame_tool_is_finite_and_bounded(fuzzed: Fuzzed) -> None:
    asked = [call for tool in fuzzed.tools for call in tool.asked]
    assert len(asked) > REPLIES / 200
    for call in asked:
        assert all(abs(number) < float("inf") for number in (call.start_s, call.end_s, call.resize))
        assert isinstance(call.nframes, int)
        assert call.nframes <= 9999


def test_no_argument_reaches_a_shell_or_leaves_the_frame_root(fuzzed: Fuzzed) -> None:
    assert all(len(tool.real) == REAL_CALLS for tool in fuzzed.tools), "the tool itself was started"
    check_contained(fuzzed.folder, {"videos", "frames"})
    frames = sorted((fuzzed.folder / "frames").rglob("frame_*.png"))
    assert frames, "some of these calls work"
    assert {path.relative_to(fuzzed.folder / "frames").parts[0].isdigit() for path in frames} == {True}


def check_contained(folder: Path, expected: set[str]) -> None:
    assert {path.name for path in folder.iterdir()} == expected
    for path in folder.rglob("*"):
        assert path.name not in {"pwned", "OUTSIDE"}
        assert path.resolve().is_relative_to(folder.resolve())
