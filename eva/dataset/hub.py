"""The web: what a repository of the Hugging Face Hub holds, its files, and parts of them; files of the catalog.

The Hub's own library does the transfers.
"""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    XetDownloadError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from eva.dataset.catalog import RemoteFile
from eva.errors import EvaError
from eva.files import file_sha256, replacing
from eva.text import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What its library raises beside its own errors: of the connection, the disk, the proxies of the environment, and for
# replies that are not JSON.
_FAILURES = (OSError, httpx2.HTTPError, httpx2.InvalidURL, XetDownloadError, ImportError, ValueError)


class HubError(EvaError):
    """What cannot be fetched; the message says why and what to do."""


class DamagedError(EvaError):
    """A file or an archive that is not what it should be. Others may be whole."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    repo: str
    kind: str
    commit: str
    files: tuple[RepoFile, ...]


def look_up(repo: str, revision: str, kind: str = "dataset") -> Repository:
    """The files of a repository; those whose paths lead out of it are left out. Raises HubError."""
    with explained(repo, kind):
        api = HfApi()
        commit = api.repo_info(repo, revision=revision, repo_type=kind).sha
        if not re.fullmatch("[0-9a-f]{40}", str(commit)):
            raise HubError(f"{api.endpoint} does not answer as a hub does: {repo} has no commit")
        tree = api.list_repo_tree(repo, revision=commit, repo_type=kind, recursive=True)
        files = [one for one in tree if isinstance(one, RepoFile)]
        inside = [one for one in files if not one.path.startswith("/") and ".." not in one.path.split("/")]
    return Repository(repo, kind, str(commit), tuple(sorted(inside, key=lambda file: file.path)))


def check_model(repo: str, file: str) -> None:
    """Raises HubError at once if the Hub has no such model, or does not answer. A model of which `file` was fetched
    before is not looked up."""
    with explained(repo, "model"):
        if not isinstance(try_to_load_from_cache(repo, file), str):
            HfApi().model_info(repo, timeout=10.0)


def download(repository: Repository, file: RepoFile, folder: Path) -> Path:
    """The whole file below `folder`, checked. A file that is there is not fetched again.

    Raises HubError, or DamagedError for a file that has not the SHA-256 that the Hub names; it is deleted.
    """
    repo, kind = repository.repo, repository.kind
    with explained(repo, kind):
        path = Path(hf_hub_download(repo, file.path, repo_type=kind, revision=repository.commit, local_dir=folder))
        if file.lfs and file_sha256(path) != file.lfs.sha256:
            path.unlink()
            raise DamagedError(f"{printable(file.path)} of {repo} has not the SHA-256 that the Hub names")
    return path


class RemotePieces(io.RawIOBase):
    """Files of a repository as one file, which is read in parts, over the network. Reading raises HubError."""

    def __init__(self, repository: Repository, files: Sequence[RepoFile]) -> None:
        super().__init__()
        self._repository, self._files = repository, files
        self._starts = list(accumulate((file.size for file in files), initial=0))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        if position < 0:
            raise ValueError(f"there is no position {position}")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._position >= self._starts[-1] or not view:
            return 0
        number = bisect_right(self._starts, self._position) - 1
        first = self._position - self._starts[number]
        size = min(len(view), self._starts[number + 1] - self._position)
        repository, path = self._repository, self._files[number].path
        with explained(repository.repo, repository.kind):
            url = hf_hub_url(repository.repo, path, repo_type=repository.kind, revision=repository.commit)
            part = {"Range": f"bytes={first}-{first + size - 1}", "Accept-Encoding": "identity"}
            content = get(url, {**build_hf_headers(), **part})
            if len(content) != size:
                raise HubError(f"{url} cannot be fetched in parts: the server sent {len(content)} bytes, not {size}")
        view[:size] = content
        self._position += size
        return size


def get(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """What is at an address. To be called where errors are `explained`. A transfer that breaks off is tried again."""
    response = http_backoff("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
    hf_raise_for_status(response)
    return response.content


@contextmanager
def explained(what: str, kind: str = "") -> Iterator[None]:
    """Errors of the Hub's library become HubErrors about `what`: an address, or a repository of a kind."""
    try:
        yield
    except _FAILURES as error:
        # Where a file cannot be asked for, the library says that it is not in its cache; the reason is the cause.
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        refused = isinstance(cause, HfHubHTTPError) and cause.response.status_code in (401, 403)
        absent = isinstance(cause, RepositoryNotFoundError)  # the Hub says so of private ones with a 401
        if kind and (isinstance(cause, GatedRepoError) or (refused and not absent)):
            page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{what}"
            advice = f"accept the terms of {what} at {page}\nthen log in with a token of that account:  hf auth login"
            raise HubError(advice) from error
        reason = printable(str(cause) or type(cause).__name__, limit=500)
        if isinstance(cause, (ImportError, httpx2.InvalidURL)) or "proxy URL" in reason:
            # The message may hold a part of a password.
            reason = "the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used (SOCKS: pip install socksio)"
        raise HubError(f"{what} cannot be fetched: {reason}") from error


def fetch_file(file: RemoteFile, folder: Path, source: str = "") -> bool:
    """Put the checked file into `folder`, whole or not at all. Gives whether it was fetched: False where it was there.

    `source` is an address that has the file in the place of its own. Raises HubError where the file cannot be fetched,
    DamagedError where it is another one or another one is in its place, and WriteError where it cannot be written.
    """
    target = folder / file.name
    if target.exists():
        problem = file.find_problem(target.read_bytes())
        if problem is not None:
            raise DamagedError(f"{target} is there but {problem}; move it away, then fetch it again")
        return False
    origin = f"{source.rstrip('/')}/{file.name}" if source else file.url
    with explained(origin):
        content = get(origin)
    problem = file.find_problem(content)
    if problem is not None:
        raise DamagedError(f"{origin} is not the file of {file.url}: it {problem}")
    with replacing(target) as new:
        new.write(content)
    return True
