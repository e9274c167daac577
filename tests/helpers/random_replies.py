"""Replies of a model that went astray: calls with senseless arguments, soups of marks, noise, and five megabytes."""

from __future__ import annotations

import json
import os
import random

from harness import block
from hostile_replies import FIVE_MB

REPLIES = int(os.environ.get("EVA_TEST_FUZZ", "10000"))
SEED = int(os.environ.get("EVA_TEST_SEED", "6"))
# A stem that would leave the folder, end a line, open a shell or become an option.
STEM = "-o..\n..' \"$(touch pwned);`touch pwned` & | x, total frames saved: 1, from a to b"
ATTACKS = ["--save-dir=OUTSIDE", "../../../OUTSIDE", "$(touch pwned)", "`touch pwned`", "; touch pwned", "\0", "-i"]
NAMES = [
    "save_dir", "save-dir", "save_root", "save", "video_path", "i", "-i", "--save-dir", "clamp", "backend", "factor",
    "help", "worker", "why", "", " ", "a=b", "\ud800", "__class__", "why\nwhy", "nframes ", "start",
]  # fmt: skip
VALUES = [
    "0", "1", "4.0", "2", "-1", "0.5", "1e308", "-1e308", "1e999", "-1e999", "NaN", "Infinity", "-Infinity",
    "1" + "0" * 400, "9" * 5000, "0.1e-400", "true", "false", "null", "[]", "{}", "[1]", '"4"', '"0.5"', '"00:10"',
    '"1:02:03"', '"99999999:99"', '"many"', '""', '"NaN"', '"inf"', '"1e400"', '"\\u0000"', '"\\ud800"', '"٣"',
    *(json.dumps(attack) for attack in ATTACKS),
]  # fmt: skip
PLAIN = ["0", "1", "2", "3", '"1"', '"00:01"', "0.5", "-1", "1e308"]
PIECES = [
    "<answer>", "</answer>", "<tool_call>", "</tool_call>", '{"tool": "frame_select", "arguments": {', "}}", "}", "{",
    '"start_time": ', '"end_time": ', '"nframes": ', '"resize": ', ", ", "Answer", "answer", ": ", ".", " ", "\n", "B",
    "\0", "\ud800", "\udfff", "\u2028", "\x85", "é", "視", "🎬", "<|im_end|>", "<|image_pad|>", "{{ 7*7 }}",
    "{% raw %}",
    "[" * 2000, "{" * 2000, '{"a":' * 2000, "%s%n{0}", "\\n", "\r", "\\u0000", "٣", "<answer> </answer>", *VALUES,
]  # fmt: skip


def arguments(dice: random.Random) -> str:
    values = VALUES if dice.random() < 0.7 else PLAIN
    pairs = [(name, dice.choice(values)) for name in ("start_time", "end_time", "nframes", "resize")]
    pairs = [pair for pair in pairs if dice.random() < 0.93]
    pairs += [(dice.choice(NAMES), dice.choice(VALUES)) for _ in range(dice.choice((0, 0, 1, 3)))]
    dice.shuffle(pairs)
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in pairs) + "}"


def calls(dice: random.Random) -> str:
    word = dice.choice(("arguments", "parameters"))
    return block(
        *(f'{{"tool": "frame_select", "{word}": {arguments(dice)}}}' for _ in range(dice.choice((1, 1, 2, 5))))
    )


def soup(dice: random.Random) -> str:
    return "".join(dice.choices(PIECES, k=dice.randint(0, 40)))


def noise(dice: random.Random) -> str:
    return dice.randbytes(dice.randint(0, 400)).decode(dice.choice(("latin-1", "utf-8")), errors="surrogateescape")


def huge(dice: random.Random) -> str:
    grain = dice.choice(("x", " ", "answer", "Answer: B ", "<answer>", "<tool_call>", "{", "[", "9", "\0", "視", "}} "))
    text = grain * (FIVE_MB // len(grain))
    return dice.choice((text, f"<tool_call>{text}</tool_call>", f"<answer>{text}", text + soup(dice)))


def a_reply(number: int) -> str:
    """Reply `number`; the same one whenever it is asked for, so that a failing one can be looked at."""
    dice = random.Random(SEED * 1_000_003 + number)
    if number % 500 == 7:
        return huge(dice)
    return dice.choice((calls, calls, soup, soup, noise))(dice)
