"""`--check`: what can be found out before a run of hours: questions, videos, servers.

One real question goes through the whole loop, so that a model which answers in another form is seen.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from eva.agent.sample import SampleRunner
from eva.agent.transcript import TokenizerError, Transcribe, keep_messages, load_transcriber
from eva.agents.choice import AgentChoice
from eva.agents.readers import describe_unread, was_read
from eva.dataset.items import Item, video_path
from eva.endpoint.completion import BLACK_IMAGE_URL, image_message
from eva.endpoint.errors import ServerError
from eva.errors import EvaError, VideoError
from eva.frames.tool import CallFailedError, FrameTool, FrameToolError
from eva.protocol.arguments import FrameRequest
from eva.protocol.stop_reasons import SAMPLE
from eva.run.connect import make_model
from eva.run.executor import make_sample_runner, make_tool
from eva.run.options import Options
from eva.run.settings import (
    Dataset,
    choose_agent,
    choose_items,
    find_doubts,
    find_problems,
    load_annotations,
    with_agent_settings,
)
from eva.scoring.published import load_published
from eva.text import without_secrets
from eva.video import WHOLE_SHARE

OK, WARNING, FAILED = "ok", "warning", "failed"
# A request of the agent may hold this many images. A server that takes fewer refuses some requests.
IMAGES_PER_REQUEST = 256
# The text of a sample in tokens, beside the replies: question, labels of the frames, the question again in each round.
TEXT_TOKENS = 4096
# Questions whose video cannot be shown are passed over; another row names them.
MOST_TRIED = 10


@dataclass(frozen=True)
class Finding:
    """One row of the table. The later lines of `detail` are a list."""

    what: str
    verdict: str
    detail: str


async def check_all(dataset: Dataset, options: Options) -> list[Finding]:
    """What can be found out before a run of hours. What is missing is a row, and the other rows come all the same.

    Raises AgentError.
    """
    items, findings = list[Item](), list[Finding]()
    try:
        everything = load_annotations(dataset.jsonl, options.dataset)
        items = choose_items(everything, options)
        counts = f"{len(items)} on {len({item.videos[0] for item in items})} videos"
        findings.append(Finding("questions", OK, counts))
        doubts = find_doubts(items, everything, dataset.jsonl, load_published().get(options.dataset))
        findings += [Finding(what, WARNING, detail) for what, detail in doubts]
    except EvaError as error:
        findings.append(Finding("questions", FAILED, str(error)))
    agent = choose_agent(options, items)
    options = with_agent_settings(options, agent)
    transcribe: Transcribe = keep_messages  # without the tokenizer, what is played keeps its messages
    try:
        transcribe = load_transcriber(options.tokenizer)
        detail = "none: records hold the messages" if transcribe is keep_messages else "its chat template works"
        findings.append(Finding("tokenizer", OK, detail))
    except TokenizerError as error:
        findings.append(Finding("tokenizer", FAILED, str(error)))
    places = [Finding("settings", FAILED, str(problem)) for problem in find_problems(dataset, options)]
    findings += places
    playable = [] if places else items
    if playable:
        tool = make_tool(replace(options, fallback=True), dataset.video_root)
        findings.append(await check_videos(playable, dataset.video_root, tool))
    needed = needed_tokens(agent, options)
    servers = await asyncio.gather(*(check_server(url, needed, options) for url in options.base_url))
    findings += servers
    usable = (url for url, one in zip(options.base_url, servers, strict=True) if one.verdict != FAILED)
    if playable and (url := next(usable, None)):
        tool = make_tool(options, dataset.video_root)
        runner = make_sample_runner(agent.make(), transcribe, tool, dataset.video_root, options=options)
        verdict, reason = await _play(playable, url, runner, options)
        findings.append(Finding("one question", verdict, f"--agent {agent.name}: {reason}"))
    return findings


def needed_tokens(agent: AgentChoice, options: Options) -> int:
    """The longest context of a sample: its frames, its replies, its text."""
    turns = 1 if agent.name in ("uniform", "blind") else options.max_turns or 1  # these two ask once
    opening = max((agent.spent or {}).values(), default=agent.nframes * agent.frame_tokens)
    shown = opening if agent.name == "uniform" else (turns - 1) * options.max_visual_tokens
    return shown + turns * options.sampling.max_tokens + TEXT_TOKENS


async def check_videos(items: Sequence[Item], video_root: Path, tool: FrameTool) -> Finding:
    """Open every video, and decode its first and last frame with the frame tool."""
    names = {item.videos[0]: item for item in items}
    try:
        await tool.start()
        with tqdm(total=len(names), unit="video") as progress:

            async def find_problem(item: Item) -> str:
                problem = await _video_problem(item, video_root, tool)
                progress.update()
                return problem

            problems = list(filter(None, await asyncio.gather(*map(find_problem, names.values()))))
    except EvaError as error:
        return Finding("videos", FAILED, str(error))
    finally:
        await tool.close()
    if not problems:
        return Finding("videos", OK, f"all {len(names)} open; first and last frame decode")
    return Finding("videos", FAILED, "\n".join([f"{len(problems)} of {len(names)} cannot be shown:", *problems]))


async def _video_problem(item: Item, video_root: Path, tool: FrameTool) -> str:
    """Why the video cannot be shown; empty if it can."""
    try:
        found = await tool.probe(video_path(item, video_root))
        # The end is beyond any video: clamping makes it the time of the last frame.
        whole = FrameRequest(start_s=0, end_s=1e9, nframes=2, resize=0.1)
        extraction = await tool.extract(found.path, whole, sample=item.index)
        if extraction.folder is not None:
            shutil.rmtree(extraction.folder)
        promised_s, details = found.info.duration_s, extraction.details
        shown_s = details.get("end_s", float("inf")) - details.get("start_s", 0.0)
        if shown_s < promised_s * WHOLE_SHARE:
            return f"{item.videos[0]}: truncated: pictures end at {shown_s:.1f} s of {promised_s:.1f} s"
    except (VideoError, CallFailedError, FrameToolError, OSError) as error:
        # The name stands in front: the whole path again would only fill the screen.
        reason = str(error).replace(f"the video {video_root / item.videos[0]} ", "").replace(f"{video_root}/", "")
        return f"{item.videos[0]}: {reason}"
    return ""


async def check_server(url: str, needed: int, options: Options) -> Finding:
    """Whether the server at `url` serves the model and images, and whether its context has the `needed` tokens."""
    try:
        model = await make_model(url, options.model or "", options).connect()
    except ServerError as error:
        return Finding("server", FAILED, f"{without_secrets(url)}\n{error}")
    length, problems = model.context_length, dict[str, object]()
    if options.image_transport != "base64":
        try:
            with model.small_image() as address:
                problem: object = await model.ask_one_token([image_message(address)])
            if problem and not await model.ask_one_token([image_message(BLACK_IMAGE_URL)]):
                folder = options.frame_root.absolute()
                problem = f"{problem}\nstart vLLM with --allowed-local-media-path {folder}\nor run this with "
                problem += "--image-transport base64"
        except OSError as error:
            problem = f"--frame-root {options.frame_root} cannot be written to: {error.strerror}"
        problems["a frame by file://"] = problem
    many = [image_message(BLACK_IMAGE_URL, count=IMAGES_PER_REQUEST)]
    problems[f"{IMAGES_PER_REQUEST} images"] = await model.ask_one_token(many)
    stated = "the server does not say it" if length is None else f"{length} tokens"
    lines = [model.address, f"context: {stated}; a sample may need {needed} tokens"]
    lines += [f"{what}: {problem or 'answered'}" for what, problem in problems.items()]
    verdict = OK if length is not None and length >= needed else WARNING
    return Finding("server", FAILED if any(problems.values()) else verdict, "\n".join(lines))


async def _play(items: Sequence[Item], url: str, runner: SampleRunner, options: Options) -> tuple[str, str]:
    """Play the first question whose video can be shown: the verdict and its reason."""
    tool = runner.call_runner.tool
    try:
        model = await make_model(url, options.model or "", options).connect()
        await tool.start()
        for item in items[:MOST_TRIED]:
            record = await runner.run(item, model.complete)
            if record.failure != SAMPLE:
                break
    except EvaError as error:
        return FAILED, str(error)
    finally:
        await tool.close()
    rounds, question = record.rounds, f"question {record.index}"
    if record.error:
        return FAILED, f"{question}: {record.error_detail or record.error}"
    if record.answer:
        return OK, f"{question}: answered {record.answer!r} after {len(rounds)} replies"
    if rounds and not was_read(record, len(rounds) - 1):
        described = describe_unread(rounds[-1], record.question)
        return FAILED, f"{question} ended as {record.stop_reason}: {described}"
    return WARNING, f"{question} ended without an answer: {record.stop_reason}"


def table(findings: Sequence[Finding]) -> list[str]:
    """The findings, with the later lines of a detail below the first, and a line with the verdict."""
    lines = list[str]()
    for finding in findings:
        first, *more = finding.detail.split("\n")
        lines += [f"{finding.verdict:8} {finding.what}: {first}", *(f"         {line}" for line in more)]
    failed = sum(finding.verdict == FAILED for finding in findings)
    return [*lines, f"Verdict: {f'{failed} checks failed' if failed else 'ready to run'}"]
