"""The command with which a run goes on, without secrets: it goes into logs. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence

from eva.option_words import in_full
from eva.run.options import REFERENCE_FLAGS


def resume_command(argv: Sequence[str]) -> str:
    """The same command without secrets, and without the flags that delete records."""
    words = [word for word in in_full(argv, REFERENCE_FLAGS) if word not in ("--new-cache", "--retry-error")]
    for place, word in enumerate(words):
        name, joined, value = word.partition("=")
        if joined and name in _SECRET_FLAGS:
            words[place] = f"{name}={_SECRET_FLAGS[name](value)}"
        elif place and words[place - 1] in _SECRET_FLAGS:
            words[place] = _SECRET_FLAGS[words[place - 1]](word)
    return shlex.join(["python", *words])


def without_secrets(urls: str) -> str:
    """Addresses with placeholders for user, password and the values of the query."""
    urls = re.sub(r"([?&][^=&,]*=)[^&,]*", r"\1YOUR_KEY", urls)
    return re.sub(r"//[^/,]*@", "//YOUR_USER:YOUR_PASSWORD@", urls)


_SECRET_FLAGS: Mapping[str, Callable[[str], str]] = {
    "--api-key": lambda _: "YOUR_KEY",
    "--base-url": without_secrets,
    "--header": lambda header: f"{header.partition(':')[0]}: YOUR_VALUE",
}
