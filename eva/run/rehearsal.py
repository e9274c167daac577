"""`--check`: all rows of its table. One real question goes through the whole loop, so that a model which answers in
another form is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eva.agent.sample import SampleRunner
from eva.agent.transcript import Transcribe
from eva.agents.choice import AgentChoice
from eva.agents.readers import can_read, describe_unread
from eva.dataset.items import Item
from eva.errors import EvaError
from eva.protocol.stop_reasons import SAMPLE
from eva.records.schema import Record
from eva.run.choices import choose_agent, choose_items
from eva.run.connect import connect_to
from eva.run.evaluate import load_annotations
from eva.run.executor import make_sample_runner, make_tool
from eva.run.options import Options
from eva.run.preflight import FAILED, OK, WARNING, Finding, check_frames, check_server, check_tokenizer, find_doubts
from eva.run.settings import Dataset, find_problems
from eva.scoring.published import load_published

# Questions whose video cannot be shown are passed over; another check names them.
MOST_TRIED = 10


async def check_all(dataset: Dataset, options: Options, *, list_all: bool) -> list[Finding]:
    """What can be found out before a run of hours. What is missing is a row, and the other rows come all the same.

    Raises AgentError.
    """
    items, findings = _check_questions(dataset, options)
    agent = choose_agent(options, items)
    tokenizer, transcribe = check_tokenizer(options)
    places = [Finding("settings", FAILED, str(problem)) for problem in find_problems(dataset, options)]
    findings += [tokenizer, *places]
    playable = [] if places else items
    if playable:
        tool = make_tool(replace(options, fallback=True), dataset.video_root)
        findings += await check_frames(playable, dataset.video_root, tool, options, list_all=list_all)
    return findings + await check_servers(playable, transcribe, dataset.video_root, agent=agent, options=options)


def _check_questions(dataset: Dataset, options: Options) -> tuple[list[Item], list[Finding]]:
    try:
        everything = load_annotations(dataset.jsonl, options.dataset)
        items = choose_items(everything, options)
        published = load_published().get(options.dataset)
        counts = f"{len(items)} on {len({item.videos[0] for item in items})} videos"
        return items, [Finding("questions", OK, counts), *find_doubts(items, everything, dataset.jsonl, published)]
    except EvaError as error:
        return [], [Finding("questions", FAILED, str(error))]


async def check_servers(
    items: Sequence[Item], transcribe: Transcribe, video_root: Path, *, agent: AgentChoice, options: Options
) -> list[Finding]:
    """Check every server, and play one of the questions with the first that has no fault."""
    tables = await asyncio.gather(*(check_server(url, options) for url in options.base_url))
    found = dict(zip(options.base_url, tables, strict=True))
    findings = [finding for of_server in found.values() for finding in of_server]
    usable = [url for url, of_server in found.items() if all(one.verdict != FAILED for one in of_server)]
    if usable and items:
        tool = make_tool(options, video_root)
        runner = make_sample_runner(agent.make(), transcribe, tool, video_root, options=options)
        verdict, reason = await _play(items, usable[0], runner, options)
        findings.append(Finding("one question", verdict, f"--agent {agent.name}: {reason}"))
    return findings


async def _play(items: Sequence[Item], url: str, runner: SampleRunner, options: Options) -> tuple[str, str]:
    """Play the first question whose video can be shown: the verdict and its reason."""
    tool = runner.call_runner.tool
    try:
        model = await connect_to(url, options)
        await tool.start()
        for item in items[:MOST_TRIED]:
            record = await runner.run(item, model.complete)
            if record.failure != SAMPLE:
                break
        return _judge(record, runner)
    except EvaError as error:
        return FAILED, str(error)
    finally:
        await tool.close()


def _judge(record: Record, runner: SampleRunner) -> tuple[str, str]:
    rounds = record.rounds
    if record.error:
        return FAILED, f"question {record.index}: {record.error_detail or record.error}"
    if record.answer:
        return OK, f"question {record.index}: answered {record.answer!r} after {len(rounds)} replies"
    if not can_read(runner.agent, rounds[-1], record.question):
        described = describe_unread(rounds[-1], record.question)
        return FAILED, f"question {record.index} ended as {record.stop_reason}: {described}"
    return WARNING, f"question {record.index} ended without an answer: {record.stop_reason}"
