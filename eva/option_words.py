"""How argparse of Python up to 3.12, with which the reference was measured, reads the words of a command line. Pure.

Newer versions read some words in another way. These rules hold on every version.
"""

from __future__ import annotations

import re

_NEGATIVE = re.compile(r"-(?:\d+|\d*\.\d+)$")


def is_option(word: str) -> bool:
    """Whether a word is taken for an option, and so cannot be the value of the option before it.

    A negative number is a value if it is written without an exponent: -1 and -0.5, but not -1e-05.
    """
    return word.startswith("-") and word != "-" and " " not in word and not _NEGATIVE.match(word)
