"""`--check`: what can be found out before a run of hours: questions, videos, disk, servers."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from eva.agent.transcript import NO_TOKENIZER, TokenizerError, Transcribe, keep_messages, load_transcriber
from eva.dataset.items import Item, video_path
from eva.endpoint.completion import BLACK_IMAGE_URL, MAX_TOKENS, image_message
from eva.endpoint.errors import ServerError
from eva.errors import EvaError, VideoError
from eva.files import file_sha256, replace_text
from eva.frames.tool import CallFailedError, FrameCall, FrameTool, FrameToolError
from eva.protocol.budget import PIXELS_PER_TOKEN_SIDE
from eva.protocol.messages import first_question
from eva.protocol.option import can_be_letter, count_options
from eva.run.connect import connect_to
from eva.run.executor import store_cap
from eva.run.options import Options
from eva.scoring.published import Published, published_questions
from eva.text import folded, printable, without_secrets
from eva.video.choices import WHOLE_SHARE

if TYPE_CHECKING:
    from eva.endpoint.client import ChatModel

OK, WARNING, FAILED = "ok", "warning", "failed"
# A request of the agent may hold this many images. A server that takes fewer refuses some requests.
IMAGES_PER_REQUEST = 256
# Three bytes per pixel; PNG files are about half as large.
BYTES_PER_TOKEN = PIXELS_PER_TOKEN_SIDE**2 * 3
# The published runs take up to 2.75 rounds per question, and the last round has no tool call.
CALLS_PER_QUESTION = 1.75
# The text of a sample in tokens, beside the replies: question, labels of the frames, the question again in each round.
TEXT_TOKENS = 4096

# Labels of frames have whole seconds.
MOST_DRIFT_S = 1.0

# A table of --check names so many videos, unless it is to list all.
VIDEOS_NAMED = 10
_VERDICT_WIDTH = 9
_LIST_INDENT = " " * (_VERDICT_WIDTH + 2)


@dataclass(frozen=True)
class Finding:
    """One row of the table. Rows of one server have its name in `of`."""

    what: str
    verdict: str
    detail: str
    of: str = ""


def find_doubts(
    items: Sequence[Item], everything: Sequence[Item], jsonl: Path, published: Published | None
) -> list[Finding]:
    """What makes a figure over `items` mislead: an annotation file that is not the published one, and ground truths
    that no letter can equal. `everything` are all items of the file."""
    different = published_questions(published, file_sha256(jsonl), len(everything)) if published else []
    hopeless = [
        item for item in items if not can_be_letter(item.ground_truth, count_options(first_question(item.prompt)))
    ]
    findings = [Finding("annotations", WARNING, line) for line in different]
    if hopeless:
        some = ", ".join(f"{item.index} ({item.ground_truth!r:.20})" for item in hopeless[:5])
        detail = f"{len(hopeless)} can never be right, such as {some}, if the answer is a letter"
        findings.append(Finding("ground truths", WARNING, f"{detail}; they stay in the denominator"))
    return findings


def check_tokenizer(options: Options) -> tuple[Finding, Transcribe]:
    """Whether the tokenizer can be loaded. Without it, what is played keeps its messages."""
    none = options.tokenizer == NO_TOKENIZER
    detail = "none: records hold the messages" if none else "its chat template renders the agent's messages"
    try:
        return Finding("tokenizer", OK, detail), load_transcriber(options.tokenizer)
    except TokenizerError as error:
        return Finding("tokenizer", FAILED, str(error)), keep_messages


async def check_frames(
    items: Sequence[Item], video_root: Path, tool: FrameTool, options: Options, *, list_all: bool
) -> list[Finding]:
    """Check the videos with the frame tool, and the disk of its frames."""
    try:
        await tool.start()
        videos = await _check_videos(items, video_root, tool, options, list_all=list_all)
    except EvaError as error:
        return [Finding("videos", FAILED, str(error))]
    finally:
        await tool.close()
    return [*videos, _check_disk(options, len(items), store_cap(tool))]


async def _check_videos(
    items: Sequence[Item], video_root: Path, tool: FrameTool, options: Options, *, list_all: bool
) -> list[Finding]:
    """Open every video and decode its first and last frame with the frame tool.

    A JSON file holds the good videos, by path, size and modification time. They are not decoded again. Raises EvaError.
    """
    memory = options.frame_root / "checked_videos.json"
    good, clocks = _read_memory(memory), list[str]()
    names = {item.videos[0]: item for item in items}
    with tqdm(total=len(names), unit="video") as progress:

        async def find_problem(item: Item) -> str:
            problem = await _video_problem(item, video_root, tool, good, clocks)
            progress.update()
            return problem

        try:
            problems = [problem for problem in await asyncio.gather(*map(find_problem, names.values())) if problem]
        finally:
            replace_text(memory, json.dumps(sorted(good)), "--frame-root")
    findings = [Finding("videos", OK, f"all {len(names)} open; first and last frame decode")]
    if problems:
        findings = [_name_videos("videos", FAILED, problems, f"of {len(names)} cannot be shown:", list_all=list_all)]
    if clocks:
        about = "whose clock does not fit their frames (see docs/frames.md):"
        findings.append(_name_videos("clocks", WARNING, sorted(clocks), about, list_all=list_all))
    return findings


def _name_videos(what: str, verdict: str, lines: Sequence[str], about: str, *, list_all: bool) -> Finding:
    some = lines if list_all else lines[:VIDEOS_NAMED]
    more = [f"and {len(lines) - len(some)} more: --list names all"] if len(some) < len(lines) else []
    return Finding(what, verdict, "\n".join([f"{len(lines)} {about}", *some, *more]))


async def _video_problem(item: Item, video_root: Path, tool: FrameTool, good: set[str], clocks: list[str]) -> str:
    """Why the video cannot be shown; empty if it can. What is odd about its clock goes to `clocks`."""
    try:
        found = await tool.probe(video_path(item, video_root))
        identity = f"{found.path}|{found.size}|{found.mtime_ns}|{tool.settings.backend}"
        if identity not in good:
            # The end is beyond any video: clamping makes it the time of the last frame.
            whole = FrameCall(start_s=0, end_s=1e9, nframes=2, resize=0.1, asked={})
            extraction = await tool.extract(found.path, whole, sample=item.index)
            if extraction.folder is not None:
                shutil.rmtree(extraction.folder)
            promised_s, details = found.info.duration_s, extraction.details
            shown_s = details.get("end_s", float("inf")) - details.get("start_s", 0.0)
            if shown_s < promised_s * WHOLE_SHARE:
                return f"{item.videos[0]}: truncated: pictures end at {shown_s:.1f} s of {promised_s:.1f} s"
            if clock := _describe_clock(details):
                clocks.append(f"{item.videos[0]}: {clock}")  # to be said by each --check
            else:
                good.add(identity)
    except (VideoError, CallFailedError, FrameToolError, OSError) as error:
        # The name stands in front: the whole path again would only fill the screen.
        reason = str(error).replace(f"the video {video_root / item.videos[0]} ", "").replace(f"{video_root}/", "")
        return f"{item.videos[0]}: {reason}"
    return ""


def _describe_clock(details: Mapping[str, Any]) -> str:
    stated_fps, drift_s = details.get("stated_fps"), details.get("drift_s", 0.0)
    said = []
    if stated_fps is not None:
        own_fps = details["average_fps"]
        said.append(f"states {stated_fps:.4g} frames per second, but has {own_fps:.4g}: the stated rate is not used")
    if drift_s > MOST_DRIFT_S:
        said.append(f"the average rate chooses frames up to {drift_s:.1f} s before or after the time that is asked for")
    return "; ".join(said)


def _read_memory(memory: Path) -> set[str]:
    try:
        return set(json.loads(memory.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise EvaError(f"{memory} cannot be read ({error}): delete it, and all videos are checked again") from error


def _check_disk(options: Options, questions: int, cap_bytes: float) -> Finding:
    """Whether the frames of all questions fit on their disk, if most calls use their whole budget."""
    needed = min(questions * CALLS_PER_QUESTION * options.max_visual_tokens * BYTES_PER_TOKEN, cap_bytes)
    free = shutil.disk_usage(options.frame_root).free
    detail = f"{free / 1e9:.0f} GB free in {options.frame_root}, up to {needed / 1e9:.0f} GB of frames expected"
    return Finding("disk", OK if free > needed else WARNING, detail)


async def check_server(url: str, options: Options) -> list[Finding]:
    """Whether the server at `url` serves the model and images, and whether its context is as long as a sample may
    need."""
    try:
        model = await connect_to(url, options)
        context = _check_context((await model.read_card()).context_length, options)
        rows = [context, *await _check_addresses(model, options), await _check_count(model)]
        return [replace(row, of=f"server {model.address}") for row in rows]
    except ServerError as error:
        return [Finding("connection", FAILED, str(error), f"server {without_secrets(url)}")]


async def _check_addresses(model: ChatModel, options: Options) -> list[Finding]:
    """One image by its address, if the run sends addresses."""
    if options.image_transport == "base64":
        return []
    name = "a frame by file://"
    try:
        with model.small_image() as url:
            problem = await model.ask_one_token([image_message(url)])
    except OSError as error:
        return [Finding(name, FAILED, f"--frame-root {options.frame_root} cannot be written to: {error.strerror}")]
    if problem and not await model.ask_one_token([image_message(BLACK_IMAGE_URL)]):
        folder = options.frame_root.absolute()
        problem += f"\nstart vLLM with --allowed-local-media-path {folder}\nor run this with --image-transport base64"
    return [Finding(name, FAILED if problem else OK, problem or "answered")]


async def _check_count(model: ChatModel) -> Finding:
    """Many images inside one request."""
    problem = await model.ask_one_token([image_message(BLACK_IMAGE_URL, count=IMAGES_PER_REQUEST)])
    return Finding(f"{IMAGES_PER_REQUEST} images", FAILED if problem else OK, problem or "answered")


def _check_context(length: int | None, options: Options) -> Finding:
    turns = options.max_turns
    needed = (turns - 1) * options.max_visual_tokens + turns * MAX_TOKENS + TEXT_TOKENS
    if length is None:
        return Finding("context", WARNING, f"the server does not say it; {turns} turns may need {needed} tokens")
    verdict = OK if length >= needed else WARNING
    return Finding("context", verdict, f"{length} tokens; {turns} turns may need {needed}")


def table(findings: Sequence[Finding], *, columns: int) -> list[str]:
    """The findings in at most so many columns, as far as words allow, and a line with the verdict.

    The later lines of a detail are lists. They stand further left, so that they are not broken.
    """
    width = max(len(_indented(finding)) for finding in findings)
    lines: list[str] = []
    for before, finding in zip([Finding("", OK, ""), *findings], findings, strict=False):
        if finding.of and finding.of != before.of:
            lines.append(f"{'':{_VERDICT_WIDTH}}{printable(finding.of)}")
        start = f"{finding.verdict:{_VERDICT_WIDTH}}{_indented(finding):{width}}  "
        first, *more = finding.detail.split("\n")
        lines += folded(start + printable(first, limit=2000), columns, " " * len(start))
        for line in more:
            lines += folded(_LIST_INDENT + printable(line, limit=2000), columns, f"{_LIST_INDENT}  ")
    failed = sum(finding.verdict == FAILED for finding in findings)
    return [*lines, f"Verdict: {f'{failed} checks failed' if failed else 'ready to run'}"]


def _indented(finding: Finding) -> str:
    return f"  {finding.what}" if finding.of else finding.what
