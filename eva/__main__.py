"""`python -m eva COMMAND`: the commands of the scripts, from any folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from eva.terminal import run_command

COMMANDS = ("run", "score", "report", "fetch", "convert")


def main(argv: Sequence[str]) -> int:
    """The exit code of the command that the first argument names; 2 if it names none."""
    if len(argv) < 2 or argv[1] not in COMMANDS:
        asked = len(argv) > 1 and argv[1] in ("-h", "--help")
        print(f"usage: python -m eva {{{','.join(COMMANDS)}}} ...", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    command = importlib.import_module(f"eva.commands.{argv[1]}")
    code: int = command.main([f"eva {argv[1]}", *argv[2:]])
    return code


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv)))
