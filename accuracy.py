#!/usr/bin/env python3
"""Score a result file, compare two, measure repeats, or make a table: eva/commands/score.py."""

import sys

from eva.commands.score import main
from eva.terminal import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv)))
