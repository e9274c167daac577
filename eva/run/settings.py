"""What a run needs before anything runs: its files and folders, its questions, its agent."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eva.agent.interface import Agent
from eva.agents.choice import BUILT_IN, FRAME_TOKENS, NFRAMES, AgentChoice
from eva.agents.own import AgentError, load
from eva.dataset.catalog import load_catalog
from eva.dataset.items import Item, load_items
from eva.errors import EvaError
from eva.files import PROJECT, file_sha256
from eva.frames.tool import VideosLostError
from eva.frames.tools import is_folder
from eva.json_text import is_number
from eva.protocol.messages import first_question
from eva.protocol.option import can_be_letter, count_options
from eva.protocol.stop_reasons import INFRASTRUCTURE
from eva.records.result_file import read_records
from eva.run.options import Options, SettingsError, agent_arguments
from eva.scoring.published import Published, published_questions


@dataclass(frozen=True)
class Dataset:
    """Where the questions and videos of a dataset are, and where its cache and result go."""

    jsonl: Path
    video_root: Path
    cache: Path
    result: Path


def known_datasets() -> dict[str, dict[str, str]]:
    """The six datasets and the demo: the paths of questions and videos, which begin in the checkout, and the names of
    cache and result."""
    known = {
        name: {
            "jsonl": f"data/{one.annotations.name}",
            "video_root": f"data/videos/{name}",
            "cache": one.result.name.replace("result_", "cache_"),
            "result": one.result.name,
        }
        for name, one in load_catalog().datasets.items()
    }
    demo = {"jsonl": "demo/data/demo.jsonl", "video_root": "demo/data/videos"}
    return {**known, "demo": {**demo, "cache": "cache_demo.jsonl", "result": "result_demo.jsonl"}}


def choose_dataset(options: Options, configured: Mapping[str, Mapping[str, str]]) -> Dataset:
    """A configured dataset, or another name with the questions and videos of the settings. Raises SettingsError."""
    name, config = options.dataset, configured.get(options.dataset, {})
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SettingsError(f"--dataset {name!r}: the name goes into file names; use letters, digits, '.', '_', '-'")
    if not config and not (options.jsonl and (options.video_root or options.videos)):
        raise SettingsError(
            f"--dataset {name}: not one of {', '.join(configured)}; "
            "a question set of your own needs --jsonl and --video-root"
        )
    below_videos = options.videos / name if options.videos else None
    return Dataset(
        jsonl=options.jsonl or PROJECT / config["jsonl"],
        video_root=_absolute(options.video_root or below_videos or PROJECT / config["video_root"]),
        cache=options.output_dir / config.get("cache", f"cache_{name}.jsonl"),
        result=options.output_dir / config.get("result", f"result_{name}.jsonl"),
    )


def _absolute(path: Path) -> Path:
    """The absolute path; `$SCRATCH/videos` stays, because each node of a cluster expands it."""
    return path if str(path).startswith("$") else path.absolute()


def with_absolute_paths(options: Options) -> Options:
    """The same settings for a process that has another working folder."""
    folder = Path(options.tokenizer)
    tokenizer = str(folder.absolute()) if folder.is_dir() else options.tokenizer
    tool, root = options.frame_tool.absolute(), _absolute(options.frame_root)
    return replace(options, frame_tool=tool, frame_root=root, tokenizer=tokenizer)


def find_problems(dataset: Dataset, options: Options) -> Iterator[EvaError]:
    """The folders, files and packages that the run needs here and does not have. Each node of a cluster checks its own
    folders."""
    written = {"--output-dir": options.output_dir}
    if options.ray is None:
        written["--frame-root"] = options.frame_root
        try:
            if not is_folder(dataset.video_root):
                root = dataset.video_root
                yield SettingsError(f"there is no video folder {root}: give it with --video-root or --videos")
        except VideosLostError as error:
            yield error
    elif importlib.util.find_spec("ray") is None:
        yield SettingsError("--ray needs the package ray: pip install -r requirements/ray.txt")
    for flag, folder in written.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            yield SettingsError(f"{flag} {folder} cannot be written to: {error.strerror}")
    if not options.frame_tool.is_file():
        yield SettingsError(f"there is no frame tool {options.frame_tool}: give it with --frame-tool")
    if options.backend == "decord" and importlib.util.find_spec("decord") is None:
        yield SettingsError("--backend decord: the package decord is not installed (pip install decord)")


# --- the questions


def load_annotations(jsonl: Path, name: str) -> list[Item]:
    """The questions of an annotation file. Raises SettingsError where that of a known dataset is not there yet."""
    if not jsonl.exists() and name in known_datasets():
        command = "python -m demo.make_data" if name == "demo" else f"python data/fetch.py {name}"
        raise SettingsError(f"there is no annotation file {jsonl}: run  {command}")
    return load_items(jsonl)


def choose_items(items: Sequence[Item], options: Options) -> list[Item]:
    """The items of --ids, and of these --sample many; all without these flags. Raises SettingsError."""
    if options.ids is not None:
        unknown = sorted(set(options.ids) - {item.index for item in items})
        if unknown:
            raise SettingsError(f"--ids: there is no item {', '.join(map(str, unknown[:10]))} in the annotation file")
        items = [item for item in items if item.index in options.ids]
    if options.shuffle is None:
        return list(items[: options.sample])
    if options.sample is None:
        raise SettingsError("--shuffle draws the questions of --sample: add --sample N")
    return draw(items, options.sample, options.shuffle)


def draw(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """A random choice of `count` items, in their order.

    The choice depends on the seed and on the indices alone, on every machine and in every version of Python. A larger
    choice with the same seed holds the smaller one, so a run can be extended.
    """
    shuffled = sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item.index}".encode()).digest())
    drawn = {item.index for item in shuffled[:count]}
    return [item for item in items if item.index in drawn]


def find_doubts(
    items: Sequence[Item], everything: Sequence[Item], jsonl: Path, published: Published | None
) -> list[tuple[str, str]]:
    """What makes a figure over `items` mislead, each with what it is about: an annotation file that is not the
    published one, and ground truths that no letter can equal. `everything` are all items of the file."""
    different = published_questions(published, file_sha256(jsonl), len(everything)) if published else []
    doubts = [("annotations", line) for line in different]
    hopeless = [
        item for item in items if not can_be_letter(item.ground_truth, count_options(first_question(item.prompt)))
    ]
    if hopeless:
        some = ", ".join(f"{item.index} ({item.ground_truth!r:.20})" for item in hopeless[:5])
        detail = f"{len(hopeless)} can never be right, such as {some}, if the answer is a letter"
        doubts.append(("ground truths", f"{detail}; they stay in the denominator"))
    return doubts


# --- the agent


def choose_agent(options: Options, items: Sequence[Item]) -> AgentChoice:
    """The agent of the flags, able to play `items`. Raises AgentError, ResultError."""
    flags = {
        "--nframes": (options.nframes, "uniform"),
        "--frame-tokens": (options.frame_tokens, "uniform"),
        "--match": (options.match, "uniform"),
        "--tool-images": (options.tool_images, "tools"),
    }
    for flag, (value, agent) in flags.items():
        if value is not None and options.agent != agent:
            raise AgentError(f"{flag} is a setting of --agent {agent}, not of {options.agent}")
    if options.nframes and options.match:
        raise AgentError("--match decides the number of frames: leave --nframes out")
    given, arguments = options.agent, agent_arguments(options.agent_arg)
    if arguments and (isinstance(given, Agent) or given in BUILT_IN):
        raise AgentError(f"--agent-arg is for a class of one's own, not for {given}")
    if isinstance(given, Agent):
        return AgentChoice(f"{type(given).__module__}:{type(given).__qualname__}", given=given)
    if given in BUILT_IN:
        return AgentChoice(
            name=given,
            nframes=options.nframes or NFRAMES,
            frame_tokens=options.frame_tokens or FRAME_TOKENS,
            spent=read_spent(options.match, items) if options.match else None,
            matched_sha256=file_sha256(options.match) if options.match else None,
            images_for_user=options.tool_images == "user",
            pixels_per_token=options.pixels_per_token,
        )
    own, source = load(given, arguments)
    return AgentChoice(source.reference, source, arguments, own)


def with_agent_settings(options: Options, choice: AgentChoice) -> Options:
    """The settings of the run; what they leave open is as the agent says."""
    own = choice.make().settings
    turns, tokens = options.max_turns or own.max_turns, options.max_tokens or own.max_tokens
    return replace(options, max_turns=turns, max_tokens=tokens)


def read_spent(result: Path, items: Sequence[Item]) -> dict[int, int]:
    """The visual tokens that a run spent, by the index of the question. Raises AgentError where it has no usable record
    of one of `items`: of the same question, and not of a failure of the infrastructure."""
    records = {record.index: record for record in read_records(result)}
    spent = {}
    for item in items:
        record = records.get(item.index)
        tokens = record.estimated_visual_tokens if record else None
        same = record is not None and record.question in ("", first_question(item.prompt))
        if record is None or not same or record.outcome.failure == INFRASTRUCTURE or not is_number(tokens):
            raise AgentError(
                f"--match {result}: it has no finished record of the question {item.index}: "
                "finish that run (--retry-error), or choose other questions with --ids"
            )
        spent[item.index] = int(tokens)
    return spent
