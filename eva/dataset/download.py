"""Files named in a manifest, brought from the web, a mirror or a folder: checked first, then put in place."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import quote

import filelock
import httpx2
import tenacity
from tqdm import tqdm

from eva.errors import EvaError

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 16
TIMEOUT_S = httpx2.Timeout(30.0, connect=10.0)
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DIGEST_HEX_LENGTHS = {"sha256": 64, "git_blob": 40}


class FetchError(EvaError):
    """A file that cannot be brought, or is not the one the manifest names."""


class CutShortError(FetchError):
    """A transfer that ended early without the HTTP layer noticing; what came stays for the next try."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a manifest.

    `algorithm` is "sha256" (of the content) or "git_blob" (git's own id of it, for files whose size nobody
    measured). `max_bytes` is the size where it is known, which is also where a transfer is cut off.
    """

    name: str
    algorithm: str
    digest: str
    max_bytes: int
    size_known: bool

    def problem_of(self, path: Path) -> str | None:
        """What is wrong with the file at `path`, as the end of a sentence; None when it is this very file."""
        size_bytes = path.stat().st_size
        if size_bytes > self.max_bytes:
            return f"is longer than {self.max_bytes} bytes"
        if self.size_known and size_bytes != self.max_bytes:
            return f"has {size_bytes} bytes instead of {self.max_bytes}"
        digest = file_digest(path, self.algorithm)
        if digest != self.digest:
            return f"has the {self.algorithm} {digest} instead of {self.digest}"
        return None


@dataclass(frozen=True)
class Manifest:
    """Where files come from by default, and the files by dataset name."""

    source: str
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True)
class Fetched:
    """A file that is in place and checked; `fresh` when this very call brought it."""

    path: Path
    fresh: bool


def load_manifest(path: Path) -> Manifest:
    """Reads a manifest; FetchError when an entry is incomplete or its name could leave the folder."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {key: _remote_file(entry, content) for key, entry in content["files"].items()}
        return Manifest(source=content["source"], files=files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"{path} is no usable manifest: {error!r}") from error


def _remote_file(entry: Mapping[str, object], manifest: Mapping[str, object]) -> RemoteFile:
    name = entry["name"]
    if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a plain file name")
    algorithm = "sha256" if "sha256" in entry else "git_blob"
    digest = str(entry[algorithm])
    if not re.fullmatch(f"[0-9a-f]{{{DIGEST_HEX_LENGTHS[algorithm]}}}", digest):
        raise ValueError(f"{name}: {digest!r} is no {algorithm}")
    max_bytes = entry.get("size_bytes", manifest.get("max_bytes"))
    if not isinstance(max_bytes, int) or max_bytes <= 0:
        raise ValueError(f"{name}: neither size_bytes nor max_bytes is a positive integer")
    return RemoteFile(name, algorithm, digest, max_bytes, size_known="size_bytes" in entry)


def file_digest(path: Path, algorithm: str) -> str:
    """The hex digest of a file's content: "sha256", or "git_blob" (SHA-1 over `blob SIZE`, NUL, content)."""
    if algorithm == "git_blob":
        # SHA-1 because git's object ids are: it names a published file here, it guards no secret.
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        digest = hashlib.sha256()
    with path.open("rb") as content:
        for chunk in _chunks(content):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


class Source(Protocol):
    """Where files come from."""

    def bring(self, file: RemoteFile, part: Path) -> None:
        """Leaves the checked file at `part`, or raises FetchError."""


@dataclass(frozen=True)
class FolderSource:
    """An offline copy: a folder that holds the files under their own names."""

    folder: Path

    def bring(self, file: RemoteFile, part: Path) -> None:
        """Copies the file; a copy that is not the manifest's file is removed again."""
        original = self.folder / file.name
        try:
            with original.open("rb") as content:
                _write(_chunks(content), file, part, offset=0)
        except OSError as error:
            raise FetchError(f"{original} cannot be copied: {error.strerror}") from error
        _keep_only_if_right(file, part, origin=str(original))


@dataclass(frozen=True)
class WebSource:
    """The folder of a web server; `base_url` ends in a slash. `attempts` counts the first try too."""

    base_url: str
    attempts: int

    def bring(self, file: RemoteFile, part: Path) -> None:
        """Downloads the file, from where an earlier download stopped if it can.

        A broken connection, a time-out and an overloaded server are tried again with growing pauses. What came so
        far stays at `part` for the next call, unless it is wrong.
        """
        url = self.base_url + quote(file.name)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_worth_retrying),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential_jitter(multiplier=0.25, exp_base=3, max=20, jitter=0.25),
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            with httpx2.Client(follow_redirects=True, max_redirects=5, timeout=TIMEOUT_S) as client:
                retrying(_download, client, url, file, part)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise FetchError(f"{url} cannot be fetched: {_sentence(error)}") from error


def parse_source(source: str, *, attempts: int) -> Source:
    """A source from a URL (http or https) or from the path of a folder; FetchError when it is neither."""
    if "://" not in source:
        if not Path(source).is_dir():
            raise FetchError(f"{source} is neither a folder nor an http(s) URL")
        return FolderSource(Path(source))
    try:
        url = httpx2.URL(source)
    except httpx2.InvalidURL as error:
        raise FetchError(f"{source} is not a usable URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise FetchError(f"{source}: only http and https URLs and folders are sources")
    return WebSource(source.rstrip("/") + "/", attempts)


def fetch(file: RemoteFile, *, source: Source, folder: Path, force: bool) -> Fetched:
    """Puts the checked file into `folder`, atomically; a right one that is there already is left alone.

    FetchError when it cannot be brought, or when another file stands in its place and `force` is not given.
    """
    target = folder / file.name
    if target.exists():
        problem = file.problem_of(target) if target.is_file() else "is not a file"
        if problem is None:
            return Fetched(target, fresh=False)
        if not force:
            raise FetchError(f"{target} is there but {problem}; move it away, or give --force to replace it")
    part = folder / f"{file.name}.part"
    if part.is_symlink():  # writing through it would reach outside the folder
        part.unlink()
    if not (part.is_file() and file.problem_of(part) is None):
        source.bring(file, part)
    part.replace(target)
    return Fetched(target, fresh=True)


def fetch_all(
    files: Iterable[RemoteFile], *, source: Source, folder: Path, force: bool
) -> Iterator[Fetched | FetchError]:
    """Fetches one file after the other; a failure is yielded in its place and the next file is tried.

    FetchError at once when another process is fetching into the same folder: both would write the same part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / ".fetch.lock", timeout=0):
            for file in files:
                yield _fetch_or_error(file, source=source, folder=folder, force=force)
    except filelock.Timeout as error:
        raise FetchError(f"another process is fetching into {folder}; wait for it to end") from error


def _fetch_or_error(file: RemoteFile, *, source: Source, folder: Path, force: bool) -> Fetched | FetchError:
    try:
        return fetch(file, source=source, folder=folder, force=force)
    except FetchError as error:
        return error
    except OSError as error:
        return FetchError(f"{folder / file.name} cannot be written: {error.strerror}")


def _download(client: httpx2.Client, url: str, file: RemoteFile, part: Path) -> None:
    """One try. A continued part that comes out wrong is fetched again, whole.

    It was no part of this file, or the server continued somewhere else than it was asked to.
    """
    offset = part.stat().st_size if part.exists() else 0
    continued = _receive(client, url, file, part, offset=offset if offset < file.max_bytes else 0)
    if continued and file.problem_of(part) is not None:
        _receive(client, url, file, part, offset=0)
    _keep_only_if_right(file, part, origin=url)


def _receive(client: httpx2.Client, url: str, file: RemoteFile, part: Path, *, offset: int) -> bool:
    """Writes the reply's body to `part`; True when `part` still begins with what was there before.

    That is when the server continued at `offset`, or refused it because its file ends before.
    """
    # A compressed body would have other offsets and another checksum than the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with client.stream("GET", url, headers=headers) as response:
        if offset and response.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
            return True
        response.raise_for_status()
        continued = bool(offset) and response.status_code == httpx2.codes.PARTIAL_CONTENT
        _write(response.iter_raw(), file, part, offset=offset if continued else 0)
        _refuse_silent_cut(response, file, part)
    return continued


def _write(chunks: Iterable[bytes], file: RemoteFile, part: Path, *, offset: int) -> None:
    """Writes from `offset` on, at most one chunk past the most that the file can have."""
    written_bytes = offset
    total_bytes = file.max_bytes if file.size_known else None
    with (
        part.open("ab" if offset else "wb") as out,
        # disable=None: no bar where stderr is not a terminal
        tqdm(desc=file.name, total=total_bytes, initial=offset, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in chunks:
            out.write(chunk)
            out.flush()  # a killed process leaves everything it received
            bar.update(len(chunk))
            written_bytes += len(chunk)
            if written_bytes > file.max_bytes:
                break


def _refuse_silent_cut(response: httpx2.Response, file: RemoteFile, part: Path) -> None:
    """Without a length and without chunks, the end of the connection is the only end of the body there is."""
    delimited = {"content-length", "transfer-encoding"} & set(response.headers)
    size_bytes = part.stat().st_size
    if file.size_known and size_bytes < file.max_bytes and not delimited:
        raise CutShortError(f"{response.url} ended after {size_bytes} of {file.max_bytes} bytes")


def _keep_only_if_right(file: RemoteFile, part: Path, *, origin: str) -> None:
    problem = file.problem_of(part)
    if problem is not None:
        part.unlink()
        raise FetchError(f"{origin} is not the file of the manifest: it {problem}")


def _worth_retrying(error: BaseException) -> bool:
    """Only what time can mend: not a missing file, a wrong one, or a redirect to something other than http."""
    if isinstance(error, httpx2.HTTPStatusError):
        status = error.response.status_code
        return status in {408, 425, 429} or status >= 500
    if isinstance(error, httpx2.TransportError):
        return not isinstance(error, httpx2.UnsupportedProtocol)
    return isinstance(error, CutShortError)


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s; next try in %.1f s", _sentence(error), state.upcoming_sleep)


def _sentence(error: BaseException | None) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"the server answered {error.response.status_code} {error.response.reason_phrase}"
    return str(error) or type(error).__name__
