"""Annotation rows of our own wording in the shape of each of the six datasets, for where their files are absent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

ROWS = 24
LETTERS = "ABCDEF"
WORDS = ("a kite", "a lamp", "two cups", "nobody", "a red door", "rain")
# The literal backslash-n that some datasets have in place of a line end.
BACKSLASH_N = "\\n"


def own_rows(dataset: str) -> list[dict[str, Any]]:
    return [SHAPES[dataset](number) for number in range(ROWS)]


def _row(number: int, video: str, question: str, *, options: int = 4, **extra: Any) -> dict[str, Any]:
    reward = {"style": "rule", "ground_truth": LETTERS[number % options], "reward_fn": "video_crop"}
    prompt = [{"role": "user", "content": question}]
    return {"videos": [video], "prompt": prompt, "reward_model": reward, "index": number, **extra}


def _options(template: str, count: int = 4) -> list[str]:
    return [template.format(letter, word) for letter, word in zip(LETTERS[:count], WORDS, strict=False)]


def _lines(number: int, options: Sequence[str], *, end: str = "\n") -> str:
    return end.join([f"What can be seen in part {number}?", *options])


def _videomme(number: int) -> dict[str, Any]:
    return _row(number, f"-vidMME{number // 3:04}.mp4", _lines(number, _options("{}. {}.")))


def _longvideobench(number: int) -> dict[str, Any]:
    asked = _lines(number, [*_options("{}. {}"), "Answer with the option's letter from the given choices directly."])
    return _row(number, f"LVBnosub{number // 2:03}.mp4", asked)


def _mlvu(number: int) -> dict[str, Any]:
    folder = ("1_plotQA", "2_needle", "4_count", "7_topic_reasoning")[number % 4]
    asked = "\n".join([f"Watch.Question: What happens in part {number}?", "Options:", *_options("({}) {}")])
    return _row(number, f"/mnt/far/away/.cache/MVLU/MLVU/video/{folder}/clip_{number}.mp4", asked + "\nOnly the best.")


def _lsdbench(number: int) -> dict[str, Any]:
    video = f"{number // 2:08x}-0000-4000-8000-00000000feed.mp4"
    return _row(number, video, _lines(number, _options("{}: {}."), end=BACKSLASH_N))


def _videoholmes(number: int) -> dict[str, Any]:
    asked = _lines(number, _options("{}. {}", 6))
    if number == 3:  # some have both
        asked = asked.replace("?", f":{BACKSLASH_N}and why?")
    extra = {"Question_ID": number + 1, "Question_Type": "SR", "Explanation": 'It\'s seen — "clearly" — at 0:28.'}
    return _row(number, f"_holmes_{number // 5:03}.mp4", asked, options=6, **extra)


def _lvbench(number: int) -> dict[str, Any]:
    video = f"LVB{number // 12:08}"
    extra: dict[str, Any] = {
        "uid": 55 + number,
        "question_type": "['reasoning', 'entity recognition']",
        "time_reference": "00:15-00:19",
        "id": f"{video}_{55 + number}",
        "video_type": "cartoon",
    }
    return _row(number, f"{video}.mp4", _lines(number, _options("({}) {}"), end=BACKSLASH_N), **extra)


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "videomme": _videomme,
    "longvideobench": _longvideobench,
    "mlvu": _mlvu,
    "lsdbench": _lsdbench,
    "videoholmes": _videoholmes,
    "lvbench": _lvbench,
}
