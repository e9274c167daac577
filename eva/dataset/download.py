"""Files that a manifest names -> a folder: fetched from the web or copied, checked, then put in place.

`data/fetch.py` and `results-12k/fetch.py` share this module, their options included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import httpx2
import tenacity
from tqdm import tqdm

from eva.errors import EvaError
from eva.files import replacing

log = logging.getLogger(__name__)

TIMEOUT_S = httpx2.Timeout(30.0, connect=10.0)
# What httpx2 raises where a client cannot be made for the proxies of the environment. Its message may hold a part of a
# password.
PROXY_UNUSABLE = (ImportError, ValueError, httpx2.InvalidURL)
PROXY_ADVICE = (
    "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used; SOCKS needs  pip install socksio"
)


class FetchError(EvaError):
    """A file that cannot be fetched, or that is not the file of the manifest."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a manifest, of at most `max_bytes`.

    `algorithm` is "sha256" (of the content) or "git_blob" (git's id of the content).
    """

    name: str
    algorithm: str
    digest: str
    max_bytes: int

    def find_problem(self, content: bytes) -> str | None:
        """What is wrong with `content`, as the end of a sentence; None where it is the content of this file."""
        if len(content) > self.max_bytes:
            return f"is longer than {self.max_bytes} bytes"
        digest = hash_content(content, self.algorithm)
        return None if digest == self.digest else f"has the {self.algorithm} {digest} instead of {self.digest}"


@dataclass(frozen=True)
class Manifest:
    """The folder or address that the files come from by default, and the files by dataset name."""

    source: str
    files: Mapping[str, RemoteFile]


def load_manifest(path: Path) -> Manifest:
    """Read a manifest of this repository. Raises OSError, ValueError or KeyError where it is damaged."""
    content = json.loads(path.read_text(encoding="utf-8"))
    files = {key: _remote_file(entry, content) for key, entry in content["files"].items()}
    return Manifest(content["source"], files)


def _remote_file(entry: Mapping[str, str], manifest: Mapping[str, str]) -> RemoteFile:
    algorithm = "sha256" if "sha256" in entry else "git_blob"
    max_bytes = entry["size_bytes"] if "size_bytes" in entry else manifest["max_bytes"]
    return RemoteFile(entry["name"], algorithm, entry[algorithm], int(max_bytes))


def hash_content(content: bytes, algorithm: str) -> str:
    """The hex digest of `content`: "sha256", or "git_blob" (SHA-1 over `blob SIZE`, NUL, content)."""
    if algorithm == "sha256":
        return hashlib.sha256(content).hexdigest()
    # Git's object ids are SHA-1. The id names a published file here; it does not guard a secret.
    digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


def check_source(source: str) -> None:
    """Raise FetchError where `source` is neither a folder nor an http(s) URL."""
    if not re.match("https?://[^/]", source) and not Path(source).is_dir():
        raise FetchError(f"{source} is neither a folder nor an http(s) URL")


def fetch(file: RemoteFile, *, source: str, folder: Path, force: bool, retries: int) -> bool:
    """Put the checked file into `folder`, whole or not at all. Return False where it is there already.

    Raises FetchError where the file cannot be fetched or is not the file of the manifest, and where another file is in
    its place and `force` is False. Raises WriteError where it cannot be written.
    """
    target = folder / file.name
    if target.exists():
        problem = file.find_problem(target.read_bytes()) if target.is_file() else "is not a file"
        if problem is None:
            return False
        if not force:
            raise FetchError(f"{target} is there but {problem}; move it away, or give --force to replace it")
    origin = f"{source.rstrip('/')}/{file.name}"
    content = _read(Path(origin)) if Path(source).is_dir() else _download(origin, file, retries)
    problem = file.find_problem(content)
    if problem is not None:
        raise FetchError(f"{origin} is not the file of the manifest: it {problem}")
    with replacing(target) as new:
        new.write(content)
    return True


def _read(original: Path) -> bytes:
    try:
        return original.read_bytes()
    except OSError as error:
        raise FetchError(f"{original} cannot be copied: {error.strerror}") from error


def _download(url: str, file: RemoteFile, retries: int) -> bytes:
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=tenacity.stop_after_attempt(retries + 1),
        wait=tenacity.wait_exponential_jitter(multiplier=0.25, exp_base=3, max=20, jitter=0.25),
        before_sleep=_log_retry,
        reraise=True,
    )
    try:
        made = httpx2.Client(follow_redirects=True, max_redirects=5, timeout=TIMEOUT_S)
    except PROXY_UNUSABLE as error:
        raise FetchError(f"{url} cannot be fetched: {PROXY_ADVICE}") from error
    try:
        with made as client:
            return retrying(_receive, client, url, file)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise FetchError(f"{url} cannot be fetched: {_describe(error)}") from error


def _receive(client: httpx2.Client, url: str, file: RemoteFile) -> bytes:
    """The body of one reply. It is cut off soon after `file.max_bytes`."""
    content = bytearray()
    with (
        client.stream("GET", url) as response,
        # disable=None: no bar where stderr is not a terminal
        tqdm(desc=file.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        response.raise_for_status()
        for chunk in response.iter_bytes():
            content += chunk
            bar.update(len(chunk))
            if len(content) > file.max_bytes:
                break
    return bytes(content)


def _is_transient(error: BaseException) -> bool:
    """A missing file, a wrong file and a redirect to something other than http stay as they are."""
    if isinstance(error, httpx2.HTTPStatusError):
        status = error.response.status_code
        return status in {408, 425, 429} or status >= 500
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s; next try in %.1f s", _describe(error), state.upcoming_sleep)


def _describe(error: BaseException | None) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"the server answered {error.response.status_code} {error.response.reason_phrase}"
    return str(error) or type(error).__name__


def fetch_parser(description: str, manifest: Manifest, folder: Path) -> argparse.ArgumentParser:
    """The options of a script that fetches the files of `manifest` into `folder`."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Exit codes: 0 every file is there and right; 1 a file is not; 2 unusable arguments; 130 interrupted.",
    )
    names = ", ".join(manifest.files)
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=f"default: all of {names}")
    parser.add_argument("--source", default=manifest.source, help="URL or folder of a mirror (%(default)s)")
    parser.add_argument("--output", type=Path, default=folder, help="folder of the files (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there but wrong")
    parser.add_argument("--retries", type=int, default=4, help="tries after a failed first one (%(default)s)")
    return parser


def parse_fetch_arguments(
    argv: Sequence[str], parser: argparse.ArgumentParser, manifest: Manifest
) -> argparse.Namespace:
    """The parsed command line `argv`, whose first word is the command, with each of `datasets` once. Exits with code 2
    where it is unusable."""
    args = parser.parse_args(argv[1:])
    unknown = [name for name in args.datasets if name not in manifest.files]
    if unknown:
        parser.error(f"unknown dataset {', '.join(unknown)}; there are {', '.join(manifest.files)}")
    if args.retries < 0:
        parser.error(f"--retries {args.retries} is negative")
    args.datasets = list(dict.fromkeys(args.datasets or manifest.files))
    return args


def fetch_and_report(args: argparse.Namespace, manifest: Manifest) -> int:
    """Fetch the files of `args.datasets`, print one line per file, and return the exit code."""
    logging.basicConfig(format="%(message)s")
    try:
        check_source(args.source)
    except FetchError as error:
        print(f"--source {error}", file=sys.stderr)
        return 2
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(args.output / ".fetch.lock", timeout=0):
            failed = sum(not _fetch_and_print(manifest.files[name], args) for name in args.datasets)
    except filelock.Timeout:
        print(f"another process is fetching into {args.output}; wait for it to end", file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command fetches what is missing", file=sys.stderr)
        return 130
    if failed:
        print(f"{failed} of {len(args.datasets)} files are not in place", file=sys.stderr)
    return 1 if failed else 0


def _fetch_and_print(file: RemoteFile, args: argparse.Namespace) -> bool:
    try:
        fetched = fetch(file, source=args.source, folder=args.output, force=args.force, retries=args.retries)
    except EvaError as error:
        print(error, file=sys.stderr)
        return False
    print(f"{args.output / file.name}: {'fetched' if fetched else 'already there'}, checked")
    return True
