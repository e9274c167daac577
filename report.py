#!/usr/bin/env python3
"""Make the page of a result, or serve that of a run: eva/commands/report.py."""

import sys

from eva.commands.report import main
from eva.terminal import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv)))
