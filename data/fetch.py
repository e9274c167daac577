#!/usr/bin/env python3
"""Fetch annotations, videos and weights: eva/commands/fetch.py."""

import sys
from pathlib import Path

# A script finds modules beside itself only; the package `eva` is one folder up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eva.commands.fetch import main
from eva.terminal import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv)))
