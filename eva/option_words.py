"""How argparse of Python up to 3.12, with which the reference was measured, reads the words of a command line. Pure.

Newer versions read some words in another way. These rules hold on every version.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_NEGATIVE = re.compile(r"-(?:\d+|\d*\.\d+)$")


def is_option(word: str) -> bool:
    """Whether a word is taken for an option, and so cannot be the value of the option before it.

    A negative number is a value if it is written without an exponent: -1 and -0.5, but not -1e-05.
    """
    return word.startswith("-") and word != "-" and " " not in word and not _NEGATIVE.match(word)


def full_names(word: str, names: Collection[str]) -> list[str]:
    """Which of the options `names` a word such as `--res` can stand for: itself, or each one that begins with it."""
    return [word] if word in names else [name for name in names if name.startswith(word)]


def in_full(words: Sequence[str], names: Collection[str]) -> list[str]:
    """The words, in which the beginning of exactly one of `names` is replaced by that name."""
    return [_in_full(word, names) if word.startswith("--") else word for word in words]


def _in_full(word: str, names: Collection[str]) -> str:
    name, joined, value = word.partition("=")
    found = full_names(name, names)
    return found[0] + joined + value if len(found) == 1 else word
