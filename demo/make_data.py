"""Makes the demo dataset: `python -m demo.make_data` renders its videos and writes its questions.

The seed is fixed: every machine gets the same questions, and the same pictures before encoding. Training never draws
any of these questions (`Question.held_out`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.questions import KINDS, Question, ask
from demo.scenes import Clip, plan_clip
from demo.video_writer import write_clip

FOLDER = Path(__file__).resolve().parent / "data"
SEED = 20


@dataclass(frozen=True)
class Film:
    """A clip, its file name, and the questions on it."""

    name: str
    clip: Clip
    questions: tuple[Question, ...]


def main() -> int:
    args = parse_args()
    films = plan(videos=args.videos, per_kind=args.per_kind)
    (args.out / "videos").mkdir(parents=True, exist_ok=True)
    render(films, args.out / "videos")
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(films)]
    (args.out / "demo.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} questions on {len(films)} videos in {args.out}")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for demo.jsonl and videos/ (%(default)s)")
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--per-kind", type=int, default=100, help="questions of each kind (%(default)s)")
    return parser.parse_args()


def plan(*, videos: int, per_kind: int) -> list[Film]:
    """All clips and their questions, spread evenly, from the fixed seed."""
    rng = random.Random(f"demo {SEED}")
    films = []
    for number in range(videos):
        share = per_kind * (number + 1) // videos - per_kind * number // videos
        clip = plan_clip(rng)
        questions = [question for kind in KINDS for question in held_out(rng, clip, kind, count=share)]
        films.append(Film(file_name(number, clip), clip, tuple(questions)))
    return films


def file_name(number: int, clip: Clip) -> str:
    """The name depends on the content, so that a video of another version of this script is never used."""
    return f"clip_{number:02d}_{zlib.crc32(repr(clip).encode()):08x}.mp4"


def held_out(rng: random.Random, clip: Clip, kind: str, *, count: int) -> list[Question]:
    """`count` different questions of one kind on `clip`, none of which training can draw."""
    questions: dict[str, Question] = {}
    while len(questions) < count:
        question = ask(rng, clip, kind)
        if question is not None and question.held_out:
            questions[question.text] = question
    return list(questions.values())


def render(films: Sequence[Film], folder: Path) -> None:
    """Write the videos that are not there yet. Each has another name until it is whole."""
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(_render_one, films, [folder] * len(films)):
            pass


def _render_one(film: Film, folder: Path) -> None:
    path = folder / film.name
    if path.exists():
        return
    part = path.with_suffix(".part.mp4")
    write_clip(part, film.clip, seed=zlib.crc32(film.name.encode()))
    part.replace(path)


def rows(films: Sequence[Film]) -> Iterator[dict[str, Any]]:
    """The annotation lines, the kinds one after the other so that the first few lines show them all."""
    pairs = [(film, question) for film in films for question in film.questions]
    turn = {kind: [pair for pair in pairs if pair[1].kind == kind] for kind in KINDS}
    mixed = [pair for together in zip(*turn.values(), strict=True) for pair in together]
    for index, (film, question) in enumerate(mixed):
        yield {
            "index": index,
            "videos": [film.name],
            "prompt": [{"role": "user", "content": question.text}],
            "reward_model": {"ground_truth": question.letter},
            "kind": question.kind,
            "duration_s": film.clip.duration_s,
            "looks_s": list(question.looks_s),
        }


if __name__ == "__main__":
    sys.exit(main())
