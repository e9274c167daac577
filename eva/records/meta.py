"""The meta file beside a cache or a result: what it was made with, so that no run mixes two configurations unseen."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from eva import __version__
from eva.errors import EvaError
from eva.files import PROJECT, replace_text
from eva.json_text import parse_json

# Raised when a change of this code changes what the model is sent or how its replies are judged.
PROTOCOL_VERSION = 2
# The setting that a server may not state: then it is not compared.
WEIGHTS = "weights"
_PACKAGES = ("av", "decord", "numpy", "httpx2", "opencv-python-headless", "transformers")


class SettingsDifferError(EvaError):
    """A cache that was made with other settings than this run's."""


@dataclass(frozen=True)
class Meta:
    """`settings` are those that change results; `started` holds one ISO time per run.

    `mixed` holds the settings of earlier runs that a later run replaced. `adopted` says that the cache held records of
    unknown settings before this file was first written. `coverage` says how many questions there are, and which were
    chosen (eva/scoring/coverage.py).
    """

    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    started: tuple[str, ...]
    mixed: tuple[Mapping[str, Any], ...] = ()
    adopted: bool = False
    coverage: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unknown(cls) -> Meta:
        """The meta of records that another program made."""
        return cls({}, {}, (), adopted=True)


def meta_path(records: Path) -> Path:
    """`cache_x.jsonl` -> `cache_x.meta.json`, beside it."""
    return records.with_suffix(".meta.json")


def begin(cache: Path, settings: Mapping[str, Any], before: Meta | None, *, has_records: bool, force: bool) -> Meta:
    """The meta to write beside a cache at the start of a run; nothing is written yet. `before` is that of its records.

    Raises SettingsDifferError if the cache was made with other settings, unless `force`: then both are kept, as mixed.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if before is None:
        return Meta(settings, environment(), (started,), adopted=has_records)
    different = require_equal(before.settings, settings, cache, force=force)
    return replace(
        before,
        settings=settings if different else {**settings, **before.settings},
        environment=environment(),
        started=(*before.started, started),
        mixed=(*before.mixed, before.settings) if different else before.mixed,
    )


def require_equal(before: Mapping[str, Any], now: Mapping[str, Any], cache: Path, *, force: bool) -> list[str]:
    """The differences of two settings. Raises SettingsDifferError if there are any, unless `force`."""
    lines = differences(before, now)
    if lines and not force:
        raise SettingsDifferError(
            f"the cache {cache} was made with other settings:\n  " + "\n  ".join(lines) + "\n"
            "Start over with --new-cache, use another --output-dir, or mix the two with --force."
        )
    return lines


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line per setting that differs."""
    return [f"{name}: {before.get(name)!r} then, {now.get(name)!r} now" for name in differing(before, now)]


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the settings that differ. Weights that one of the two does not name are not compared."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [name for name in names if name != WEIGHTS or (before.get(WEIGHTS) and now.get(WEIGHTS))]


def read_meta(records: Path) -> Meta | None:
    """The meta file beside a cache or result, None where there is none. Raises EvaError where it is broken."""
    path = meta_path(records)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return Meta(
            settings=dict(content["settings"]),
            environment=dict(content["environment"]),
            started=tuple(content["started"]),
            mixed=tuple(content["mixed"]),
            adopted=bool(content["adopted"]),
            coverage=dict(content["coverage"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaError(f"{path} cannot be read ({error}): mend it, or delete it to go on without") from error


def write_meta(records: Path, meta: Meta) -> None:
    replace_text(meta_path(records), json.dumps(asdict(meta), indent=1, ensure_ascii=False) + "\n", "--output-dir")


def environment() -> dict[str, Any]:
    """The versions of this code, and of what touches pixels and messages."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--abbrev=40", "--match=", "--dirty=+dirty"]
    commit = None
    with suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    return {"eva": __version__, "python": platform.python_version(), "packages": package_versions(), "commit": commit}


def package_versions() -> dict[str, str]:
    """The installed packages that touch pixels and messages."""
    versions = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
