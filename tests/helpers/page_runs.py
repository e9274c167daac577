"""Small real runs of eval-eva.py on the same questions, for the tests of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Bench, block, call, make_video, row
from scripted_server import Script, ScriptedServer

RIGHT, WRONG = "<answer>B</answer>", "<answer>A</answer>"
PWN = "window.pwned=1"
NASTY_VIDEO = f"\"><img src=x onerror={PWN}>'&lt;.mp4"
# What a page could trip over in a text: as a reply, in a question and as a category.
NASTY = {
    "an image": f"<img src=x onerror={PWN}>",
    "an end of script": f"</script><script>{PWN}</script>",
    "a comment": "<!-- <script>",
    "an attribute": f'" onmouseover="{PWN}" autofocus onfocus="{PWN}" x="',
    "an address": f"javascript:{PWN}//",
    "a template": "{{ 7 * 7 }}${7*7}{% raw %}",
    "a style": "</style><style>*{display:none}",
    "a title": f"</title><svg/onload={PWN}>",
    "separators": "a\u2028b\u2029c\u0085d\0e\x1b[31m",
    "directions": "\u202eabc\u2066def",
    "a half": "\ud800 x \udfff",
    "control tokens": "<|im_end|>\n<|im_start|>user\n",
}
LONG = "long " * 200_000 + "needle-at-the-end"

Turns = Sequence[Any]


def look(start: Any, end: Any, nframes: Any, resize: Any = 1.0) -> str:
    return f"I look at {start}.\n" + block(call(start, end, nframes, resize))


FIRST: Mapping[str, Turns] = {
    "at once": [RIGHT],
    "one look": [look(1, 4, 3), f"It is grey. {RIGHT}"],
    "two looks": [look(0, 5, 4), look(2, 3, 2), RIGHT],
    "over budget": [look(0, 5, 40), RIGHT],
    "beyond the end": [look(4, 4507, 3), RIGHT],
    "wrong": [look(1, 2, 2), WRONG],
    "wrong again": [WRONG],
    "silent": ["I cannot tell."],
    "bad call": [look(1, 4, "many"), RIGHT],
    "flips to right": [look(1, 2, 2), WRONG],
    "flips to wrong": [look(1, 2, 2), RIGHT],
    "other course": [look(1, 2, 2), RIGHT],
    "no video": [RIGHT],
    "long": [LONG, RIGHT],
    **{name: [f"{text} {look(1, 2, 1)} {text}", f"{text} {WRONG}"] for name, text in NASTY.items()},
    "needle": ["Only this reply says zebrafish.", RIGHT],
}
SECOND: Mapping[str, Turns] = {
    **FIRST,
    "flips to right": [look(1, 2, 2), look(3, 4, 2), RIGHT],
    "flips to wrong": [look(1, 2, 2), WRONG],
    "other course": [look(1, 2, 2), look(2, 3, 2), RIGHT],
    "wrong": ["I do not know."],
    "wrong again": ["<answer>C</answer>"],
}
INDEX = {name: number for number, name in enumerate(FIRST)}


@dataclass(frozen=True)
class Ran:
    """A run's result, and where its frames lie."""

    result: Path
    frames: Path


def questions() -> list[dict[str, Any]]:
    rows = []
    for number, name in enumerate(FIRST):
        video = {"no video": "absent.mp4"}.get(name, "clip.mp4" if number % 3 else NASTY_VIDEO)
        text = NASTY.get(name, "")
        rows.append(row(name, video=video, index=number, category=text or ("odd" if number % 2 else "even")))
        if name == "two looks":
            rows[-1]["time_reference"] = "00:02-00:03"
        rows[-1]["prompt"][-1]["content"] += f"\nC. {text or 'three'}"
    return rows


def make_run(folder: Path, tokenizer: Path, replies: Mapping[str, Turns], *, frames: Path | None = None) -> Ran:
    with ScriptedServer(Script(replies)) as server:
        bench = Bench(folder, server.base_url, tokenizer)
        for video in ("clip.mp4", NASTY_VIDEO):
            make_video(bench.videos / video)
        bench.write(questions())
        frames = frames or bench.frame_root
        done = bench.run("-v", "60", "--max-concurrent", "8", frame_root=str(frames))
        assert done.code == 0, done.said
        return Ran(done.result, frames)
