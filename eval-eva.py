#!/usr/bin/env python3
"""Evaluate EVA, or another agent, on a multiple-choice video dataset: `eval-eva.py --help` has the flags.

`eva/run/evaluate.py` is the run itself; `eva/commands/run.py` says what the command prints and how it exits.
"""

from __future__ import annotations

import sys
from pathlib import Path

from eva.commands.run import main
from eva.run.options import NO_API_KEY, Options
from eva.run.settings import known_datasets
from eva.terminal import run_command

# The settings of this machine, to be edited: put a value of your own behind the equals sign. A flag wins over it.
BASE_URL = Options.base_url  # "http://127.0.0.1:8000/v1"
API_KEY = NO_API_KEY
MODEL_TOKENIZER_PATH = Options.tokenizer  # "models/EVA"
FRAME_TOOL_PATH = Options.frame_tool  # "select_frame_fallback.py" in this folder
FRAME_SAVE_ROOT = Options.frame_root  # "/tmp/eva-frames"; the server must be allowed to read this folder

# Of each dataset the paths of questions ("jsonl") and videos ("video_root"), which begin in this folder, and the names
# of "cache" and "result", which begin in --output-dir. To change one, add a line below:
# DATASET_CONFIG["lvbench"]["video_root"] = "/mnt/lvbench"
DATASET_CONFIG = known_datasets()

if __name__ == "__main__":
    settings = {
        "base_url": BASE_URL,
        "api_key": API_KEY,
        "tokenizer": MODEL_TOKENIZER_PATH,
        "frame_tool": Path(FRAME_TOOL_PATH),
        "frame_root": Path(FRAME_SAVE_ROOT),
    }
    sys.exit(run_command(lambda: main(sys.argv, settings, DATASET_CONFIG)))
