"""The table of containers: each video of a dataset, opened once, with what its header says.

The table is a JSON file beside the videos. It shows codecs that a decoder may not know, and files that do not open.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eva.errors import EvaError, VideoError
from eva.files import replace_text
from eva.frames.probing import read_text
from eva.json_text import parse_json
from eva.text import printable

TABLE = "containers.json"
# How long the disk of the videos may take to give the table.
ANSWER_TIMEOUT_S = 5.0
# How many of the files that do not open are said. The table has all of them.
MOST_SAID = 10


def write_containers(root: Path, videos: Iterable[Path], origin: str) -> list[str]:
    """Write the table of `videos`, which came from `origin`, into `root`. Gives what a person should know of it.

    A file of the same size and time as in the table before is not opened again. Raises EvaError.
    """
    known = {row.get("file"): row for row in _read(root).get("videos", ())}
    rows = [_row(root, path, known) for path in videos]
    replace_text(root / TABLE, json.dumps({"origin": origin, "videos": rows}, indent=1, ensure_ascii=False) + "\n")
    failed = [f"{row['file']}: {row['error']}" for row in rows if "error" in row]
    return [f"{root / TABLE}: {_codecs(rows)}", *failed[:MOST_SAID]]


def describe_videos(root: Path) -> str | None:
    """The table in one line: where the videos came from, their codecs, and the file. None if there is no table."""
    table = _read(root)
    return f"{table['origin']}: {_codecs(table['videos'])} ({root / TABLE})" if table else None


def _read(root: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(root / TABLE, ANSWER_TIMEOUT_S))
        return {"origin": str(content["origin"]), "videos": [dict(row) for row in content["videos"]]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaError(f"{root / TABLE} cannot be read ({error}): delete it") from error


def _codecs(rows: Iterable[dict[str, Any]]) -> str:
    counts = Counter(str(row.get("codec", "cannot be opened")) for row in rows)
    return ", ".join(f"{count} {codec}" for codec, count in counts.most_common()) or "no videos"


def _row(root: Path, path: Path, known: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    look = path.stat()
    identity = {"file": str(path.relative_to(root)), "bytes": look.st_size, "mtime_ns": look.st_mtime_ns}
    before = known.get(identity["file"], {})
    if identity.items() <= before.items():
        return before
    try:
        return {**identity, **_header(path)}
    except VideoError as error:
        return {**identity, "error": printable(str(error))}


def _header(path: Path) -> dict[str, Any]:
    """Codec, size in pixels, frames per second, and duration in seconds of the first video stream."""
    # A run only reads the table.
    from eva.video.container import moving_pictures, open_container  # noqa: PLC0415
    from eva.video.probe import probe  # noqa: PLC0415

    with open_container(path) as container:
        stream = moving_pictures(container, path)[0]
        codec, rate = stream.codec_context.name, stream.average_rate
    return {"codec": codec, "fps": float(rate) if rate else None, **asdict(probe(path))}
