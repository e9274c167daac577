"""What can be known before hours are spent: questions, videos, disk, tokenizer, servers."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eva.agent.images import data_url, file_url
from eva.dataset.items import Item, video_path
from eva.endpoint.client import MAX_TOKENS, ChatModel
from eva.errors import EvaError, VideoError
from eva.files import replace_text
from eva.frames.tool import CallFailedError, FrameCall, FrameTool, FrameToolError
from eva.protocol.messages import Message

OK, WARNING, FAILED = "ok", "warning", "failed"
# An agent's prompt may hold this many images; a server that takes fewer refuses some of its requests.
IMAGES_A_PROMPT = 256
# 28 x 28 pixels of three bytes; PNG files are about half as large.
BYTES_A_TOKEN = 28 * 28 * 3
# The published runs take up to 2.75 rounds a question, and the last one makes no call.
CALLS_A_QUESTION = 1.75
# Sound may go on after the pictures; a file that lacks more of them was cut off.
WHOLE = 0.9
# What a sample asks for in words, beside the replies: question, labels of the frames, the question again each round.
PROMPT_WORDS_TOKENS = 4096

_OPTION = re.compile(r"(?:^|\\n|\n)\s*\(?([A-Z])[).:]\s")


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    verdict: str
    detail: str


def check_items(items: Sequence[Item]) -> list[Finding]:
    """How many questions and videos there are, and which ground truths no answer can equal."""
    videos = {item.videos[0] for item in items}
    hopeless = [item for item in items if not _can_be_right(item)]
    findings = [Finding("questions", OK, f"{len(items)} on {len(videos)} videos")]
    if hopeless:
        examples = ", ".join(f"{item.index} ({item.ground_truth!r:.20})" for item in hopeless[:5])
        detail = f"{len(hopeless)} can never be right, such as {examples}; they stay in the denominator"
        findings.append(Finding("ground truths", WARNING, detail))
    return findings


def _can_be_right(item: Item) -> bool:
    truth = item.ground_truth.strip().upper()
    options = {letter for turn in item.prompt for letter in _OPTION.findall(turn["content"])}
    if len(options) > 1 and len(truth) == 1:
        return truth in options
    return any(character.isalnum() for character in truth)


async def check_videos(
    items: Sequence[Item], video_root: Path, tool: FrameTool, memory: Path, progress: Callable[[int, int], None]
) -> Finding:
    """Open every video and decode its first and last frame, as the frame tool does it.

    Videos that were found good are remembered in `memory` by path, size and modification time.
    """
    good = _remembered(memory)
    names = {item.videos[0]: item for item in items}
    done = 0

    async def one(item: Item) -> str:
        nonlocal done
        problem = await _video_problem(item, video_root, tool, good)
        done += 1
        progress(done, len(names))
        return problem

    try:
        problems = [problem for problem in await asyncio.gather(*map(one, names.values())) if problem]
    finally:
        replace_text(memory, json.dumps(sorted(good)))
    if problems:
        return Finding("videos", FAILED, f"{len(problems)} of {len(names)} cannot be shown:\n" + "\n".join(problems))
    return Finding("videos", OK, f"all {len(names)} open; first and last frame decode")


async def _video_problem(item: Item, video_root: Path, tool: FrameTool, good: set[str]) -> str:
    try:
        found = await tool.probe(video_path(item, video_root))
        identity = f"{found.path}|{found.size}|{found.mtime_ns}|{tool.settings.backend}"
        if identity not in good:
            # Beyond any video: clamping makes it the last frame's time.
            whole = FrameCall(start_s=0, end_s=1e9, nframes=2, resize=0.1, extra={})
            extraction = await tool.extract(found.path, whole, sample=item.index)
            if extraction.folder is not None:
                shutil.rmtree(extraction.folder)
            promised_s, end_s = found.info.duration_s, extraction.details.get("end_s", float("inf"))
            if end_s < promised_s * WHOLE:
                return f"{item.videos[0]}: truncated: pictures end at {end_s:.1f} s of {promised_s:.1f} s"
            good.add(identity)
    except (VideoError, CallFailedError, FrameToolError, OSError) as error:
        return f"{item.videos[0]}: {error}"
    return ""


def _remembered(memory: Path) -> set[str]:
    try:
        return set(json.loads(memory.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise EvaError(f"{memory} cannot be read ({error}): delete it, and videos are checked anew") from error


def check_disk(frame_root: Path, questions: int, max_visual_tokens: int, cap_bytes: float) -> Finding:
    """Whether the frames of all questions fit where they go, if most calls came near the budget."""
    needed = min(questions * CALLS_A_QUESTION * max_visual_tokens * BYTES_A_TOKEN, cap_bytes)
    free = shutil.disk_usage(frame_root).free
    detail = f"{free / 1e9:.0f} GB free in {frame_root}, up to {needed / 1e9:.0f} GB of frames expected"
    return Finding("disk", OK if free > needed else WARNING, detail)


async def check_server(model: ChatModel, *, max_turns: int, max_visual_tokens: int, frame_root: Path) -> list[Finding]:
    """The context against what a sample may need, and the images: one by its address, one inside, many at once."""
    what = f"server {model.address}"
    findings = [_context(what, await model.context_length(), max_turns, max_visual_tokens)]
    with black_frame(frame_root) as frame:
        by_address, inside = one_image(file_url(frame)), _images(data_url(frame), IMAGES_A_PROMPT)
        findings.append(_asked(f"{what}, a frame by file://", await model.try_out([by_address])))
        findings.append(_asked(f"{what}, {IMAGES_A_PROMPT} images", await model.try_out([inside])))
    return findings


@contextmanager
def black_frame(folder: Path) -> Iterator[Path]:
    """A picture of one visual token, readable by a server that runs as another user."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".png") as file:
        Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(file, format="PNG")
        file.flush()
        frame = Path(file.name)
        frame.chmod(0o644)
        yield frame


def _context(what: str, length: int | None, max_turns: int, max_visual_tokens: int) -> Finding:
    needed = (max_turns - 1) * max_visual_tokens + max_turns * MAX_TOKENS + PROMPT_WORDS_TOKENS
    if length is None:
        return Finding(f"{what}, context", WARNING, f"it does not say; {max_turns} turns may need {needed} tokens")
    verdict = OK if length >= needed else WARNING
    return Finding(f"{what}, context", verdict, f"{length} tokens; {max_turns} turns may need {needed}")


def one_image(url: str) -> Message:
    """A question about one picture."""
    return _images(url, 1)


def _images(url: str, count: int) -> Message:
    image = {"type": "image_url", "image_url": {"url": url}}
    return {"role": "user", "content": [{"type": "text", "text": "."}, *[image] * count]}


def _asked(what: str, problem: str) -> Finding:
    return Finding(what, FAILED if problem else OK, problem or "answered")


def table(findings: Sequence[Finding]) -> list[str]:
    """The findings in columns, and a verdict."""
    width = max(len(finding.what) for finding in findings)
    lines = [f"{finding.verdict:8} {finding.what:{width}}  {finding.detail}" for finding in findings]
    failed = sum(finding.verdict == FAILED for finding in findings)
    return [*lines, f"Verdict: {f'{failed} checks failed' if failed else 'ready to run'}"]
