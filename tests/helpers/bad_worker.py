"""The frame tool's worker, but for videos whose name says how it misbehaves on them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import select_frame_fallback as tool
from eva.frames.serve import serve


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    video = Path(request.get("cut", {}).get("video_path") or request.get("probe", "")).name
    if "hangs" in video:
        time.sleep(3600)
    if "grows" in video:
        held = []
        while True:
            held.append(b"x" * 2**24)
            time.sleep(0.01)
    if "crashes" in video:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "babbles" in video:
        print("a library's own words on standard output")
    return tool.answer(request)


serve(answer)
