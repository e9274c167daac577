"""The command with which a run goes on, without secrets: it goes into logs. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from eva.commands.run_flags import REFERENCE_FLAGS
from eva.option_words import in_full
from eva.text import without_secrets


def resume_command(argv: Sequence[str]) -> str:
    """The same command without secrets, and without the flags that delete records."""
    # `python -m eva run` calls itself "eva run".
    program = ["python", "-m", *argv[0].split()] if argv[0].startswith("eva ") else ["python", argv[0]]
    words = [word for word in in_full(argv[1:], REFERENCE_FLAGS) if word not in ("--new-cache", "--retry-error")]
    for place, word in enumerate(words):
        name, joined, value = word.partition("=")
        if joined and name in _SECRET_FLAGS:
            words[place] = f"{name}={_SECRET_FLAGS[name](value)}"
        elif place and words[place - 1] in _SECRET_FLAGS:
            words[place] = _SECRET_FLAGS[words[place - 1]](word)
    return shlex.join([*program, *words])


_SECRET_FLAGS: Mapping[str, Callable[[str], str]] = {
    "--api-key": lambda _: "YOUR_KEY",
    "--base-url": without_secrets,
    "--header": lambda header: f"{header.partition(':')[0]}: YOUR_VALUE",
}
