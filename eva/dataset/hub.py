"""The Hugging Face Hub: what a repository holds, and one file or all of it. Its own library does the transfers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import HfApi, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.hf_api import RepoFile

from eva.dataset.download import PROXY_ADVICE, PROXY_UNUSABLE
from eva.errors import DISK_FULL, EvaError
from eva.text import printable

# What its library raises beside its own errors: of the connection, the disk, and for replies that no hub gives.
_FAILURES = (OSError, httpx2.HTTPError, XetDownloadError, RuntimeError, KeyError, TypeError, *PROXY_UNUSABLE)
_REFUSED = (401, 403)
LOOK_TIMEOUT_S = 10.0


class HubError(EvaError):
    """The Hub, or the way to it, failed."""


class AbsentError(HubError):
    """There is no such repository or revision, or it is private."""


class GatedError(HubError):
    """A repository whose terms this user has not accepted."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its path there, and its bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    repo: str
    kind: str
    commit: str
    files: tuple[HubFile, ...]


def look_up(repo: str, revision: str, kind: str = "dataset") -> Repository:
    """The files of a repository; those whose paths lead out of it are left out. Raises HubError."""
    with _explained(repo, kind):
        api = HfApi()
        commit = api.repo_info(repo, revision=revision, repo_type=kind).sha
        if not re.fullmatch("[0-9a-f]{40}", str(commit)):
            raise HubError(f"{api.endpoint} does not answer as a hub does: {repo} has no commit")
        tree = api.list_repo_tree(repo, revision=commit, repo_type=kind, recursive=True)
        files = sorted((str(entry.path), int(entry.size)) for entry in tree if isinstance(entry, RepoFile))
    return Repository(repo, kind, str(commit), tuple(HubFile(path, size) for path, size in files if _is_inside(path)))


def check_model(repo: str, file: str) -> None:
    """Raises HubError at once if the Hub has no such model, or does not answer. A model of which `file` was fetched
    before is not looked up."""
    with _explained(repo, "model"):
        if not isinstance(try_to_load_from_cache(repo, file), str):
            HfApi().model_info(repo, timeout=LOOK_TIMEOUT_S)


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts


def download(repository: Repository, path: str, folder: Path) -> Path:
    """The file at `folder / path`. A file that is there is not fetched again. Raises HubError."""
    with _explained(repository.repo, repository.kind):
        return Path(
            hf_hub_download(
                repository.repo, path, repo_type=repository.kind, revision=repository.commit, local_dir=folder
            )
        )


def download_all(repository: Repository, folder: Path) -> None:
    """All files of the repository below `folder`. Raises HubError."""
    with _explained(repository.repo, repository.kind):
        snapshot_download(repository.repo, repo_type=repository.kind, revision=repository.commit, local_dir=folder)


@contextmanager
def _explained(repo: str, kind: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        # Where a file cannot be asked for, the library says that it is not in its cache; the reason is the cause.
        hidden = isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception)
        raise _explain(repo, kind, error.__cause__ if hidden else error) from error


def _explain(repo: str, kind: str, error: BaseException | None) -> HubError:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    absent = isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError))
    if isinstance(error, GatedRepoError) or (status in _REFUSED and not absent):
        page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"
        message = f"accept the terms of {repo} at {page}\nthen log in with a token of that account:  hf auth login"
        return GatedError(message)
    if absent:
        return AbsentError(f"the Hub has no {repo} of that revision, or it is private")
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return HubError(f"the disk is full: make room, or choose a folder on another disk ({error.strerror})")
    if isinstance(error, (ImportError, httpx2.InvalidURL)) or "proxy URL" in str(error):
        return HubError(f"{repo} cannot be fetched: {PROXY_ADVICE}")
    return HubError(f"{repo} cannot be fetched: {printable(str(error) or type(error).__name__, limit=500)}")
