"""The videos of a dataset: from the Hub into their folder.

An archive of which most is missing is fetched as a whole, unpacked and deleted. Of other archives, only the parts with
missing videos are read, over the network. What is there is not fetched again: the same call goes on after each error.
Of an archive, only plain files with a name that is wanted are taken, and their paths are not used.
"""

from __future__ import annotations

import io
import lzma
import os
import shlex
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import filelock
from huggingface_hub.hf_api import RepoFile
from tqdm import tqdm

from eva.dataset.catalog import KnownDataset, Source
from eva.dataset.hub import DamagedError, HubError, RemotePieces, Repository, download, look_up
from eva.dataset.items import Item, locate_video, video_path
from eva.errors import VideoError
from eva.files import WriteError, replace_text
from eva.text import printable

# Over a network, each read is a request: of headers, and of videos.
HEADER_BYTES, BLOCK_BYTES = 1 << 16, 16 << 20
# What zipfile and tarfile raise for damaged, encrypted and unsupported archives.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    *(RuntimeError, ValueError, LookupError, OverflowError),
)

# Paths by their base name, under which archives have a video. Some of MLVU's are in two folders, and are one video.
Paths = dict[str, list[Path]]


def fetch_videos(
    known: KnownDataset, items: Iterable[Item], root: Path, *, mirror: bool, agrees: Callable[[], bool]
) -> None:
    """Bring the missing videos of `items` into `root`, if `agrees` says so. `.fetch/` in it holds what comes whole.

    Raises EvaError or OSError; the same call goes on after it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root / ".fetch.lock", timeout=0):
        wanted = list(dict.fromkeys(video_path(item, root) for item in items))
        missing: Paths = {}
        for path in wanted:
            try:
                locate_video(path)
            except VideoError:
                missing.setdefault(path.name, []).append(path)
        print(f"{len(wanted)} videos wanted in {root}, {sum(map(len, missing.values()))} of them missing")
        source = (mirror and known.mirror) or known.source
        terms = f"Terms: {known.terms} See {known.page}."
        if missing and source:
            _fetch_missing(source, terms, missing, root, agrees)
        elif missing:
            names = root / known.names_file
            replace_text(names, "".join(f"{Path(name).stem}\n" for name in sorted(missing)))
            print(f"They are not on the Hub. {terms} Then:")
            for command in known.commands:
                print(f"  {command.format(folder=shlex.quote(str(root)), names=shlex.quote(str(names)))}")


@dataclass(frozen=True)
class _Job:
    """A video, or an archive with missing videos: the bytes to fetch, those of the videos (about), and those of an
    archive that is on the disk until it is unpacked."""

    name: str
    transfer: int
    videos: int
    archive: int
    run: Callable[[], None]


def _fetch_missing(source: Source, terms: str, missing: Paths, root: Path, agrees: Callable[[], bool]) -> None:
    repository = look_up(source.repo, source.revision)
    work = root / ".fetch"
    # The Hub's library does not go on with what a killed process left of a file.
    shutil.rmtree(work / ".cache", ignore_errors=True)
    jobs = list((_files if source.kind == "files" else _archives)(repository, source, missing, root))
    if not jobs:
        raise HubError(f"{source.repo} does not have the {len(missing)} missing videos")
    on_disk = sum(job.videos for job in jobs) + max(job.archive for job in jobs)
    check_room(repository, root, sum(job.transfer for job in jobs), on_disk)
    print(terms)
    if not agrees():
        raise HubError("called off; no video was fetched (--yes agrees without a question)")
    work.mkdir(exist_ok=True)
    damaged = 0
    for job in jobs:
        try:
            job.run()
            print(f"{printable(job.name)}: done")
        except DamagedError as error:
            damaged += 1
            print(f"{printable(job.name)}: {error}", file=sys.stderr)
    if damaged:
        raise HubError(f"{damaged} files were damaged; the same command fetches them again")
    shutil.rmtree(work)


def check_room(repository: Repository, folder: Path, transfer: int, needed: int) -> None:
    """Print what will be fetched. Raises HubError if the disk has no room for it."""
    free = shutil.disk_usage(folder).free
    room = f"about {_size(needed)} of disk needed, {_size(free)} free"
    print(f"{repository.repo} at {repository.commit:.8}: {_size(transfer)} to fetch; {room}")
    if free < needed:
        raise HubError(f"the disk of {folder} is too small: {room}; make room, or choose another folder")


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _files(repository: Repository, source: Source, missing: Paths, root: Path) -> Iterator[_Job]:
    """Videos that are files of the repository."""
    there = {file.path: file for file in repository.files}
    for target in (target for targets in missing.values() for target in targets):
        file = there.get(f"{source.folder}/{target.relative_to(root).as_posix()}")
        if file:
            yield _Job(file.path, file.size, file.size, 0, partial(_bring, repository, file, root / ".fetch", target))


def _bring(repository: Repository, file: RepoFile, work: Path, target: Path) -> None:
    path = download(repository, file, work)
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)


def _archives(repository: Repository, source: Source, missing: Paths, root: Path) -> Iterator[_Job]:
    """The archives that have missing videos, in the order of their names."""
    files = tuple(file for file in repository.files if fnmatchcase(file.path, source.files))
    if not files:
        raise HubError(f"{source.repo} has no files {source.files}: its layout has changed")
    if source.kind == "tar-parts":
        # A tar does not say what is in it before it is read.
        share = sum(file.size for file in files) * len(missing) // max(source.videos, len(missing))
        unpack = partial(_unpack, repository, files, tar_members, missing, root / ".fetch", whole=False)
        yield _Job(source.files, share, share, 0, unpack)
        return
    for pieces in [(file,) for file in files] if source.kind == "zips" else [files]:
        try:
            with _remote(repository, pieces) as file:
                found = [member for member in zip_members(file) if member.name in missing]
        except DamagedError as error:
            print(f"{printable(pieces[0].path)}: {error}", file=sys.stderr)
            continue
        transfer = sum(member.packed for member in found)
        whole = len(pieces) == 1 and 2 * transfer > pieces[0].size
        if whole:
            transfer = pieces[0].size
        if found:
            videos = sum(member.size * len(missing[member.name]) for member in found)
            unpack = partial(_unpack, repository, pieces, zip_members, missing, root / ".fetch", whole=whole)
            yield _Job(pieces[0].path, transfer, videos, transfer if whole else 0, unpack)


def _remote(repository: Repository, pieces: tuple[RepoFile, ...]) -> IO[bytes]:
    return io.BufferedReader(RemotePieces(repository, pieces), HEADER_BYTES)


def _unpack(
    repository: Repository,
    pieces: tuple[RepoFile, ...],
    members: Callable[[IO[bytes]], Iterator[Member]],
    missing: Paths,
    work: Path,
    *,
    whole: bool,
) -> None:
    """Take the missing videos out of an archive, which is fetched before and deleted after that if it comes `whole`.

    Raises DamagedError, HubError, WriteError or OSError.
    """
    archive = download(repository, pieces[0], work) if whole else None
    # disable=None: no bar where stderr is not a terminal
    with tqdm(unit="B", unit_scale=True, disable=None) as bar:
        try:
            with archive.open("rb") if archive else _remote(repository, pieces) as file:
                for member in members(file):
                    if not missing:
                        break
                    for target in missing.get(member.name, ()):
                        take(member, work / "part", target)
                        bar.update(member.size)
                    missing.pop(member.name, None)
        finally:
            if archive:
                archive.unlink()


@dataclass(frozen=True)
class Member:
    """A plain file in an archive: its base name, its bytes, and the bytes that it takes in the archive."""

    name: str
    size: int
    packed: int
    open: Callable[[], IO[bytes] | None]


def zip_members(file: IO[bytes]) -> Iterator[Member]:
    """The plain files of a zip, in the order in which they lie in it. Raises DamagedError."""
    with _damage_explained(), zipfile.ZipFile(file) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG):
                name = PurePosixPath(info.filename).name
                yield Member(name, info.file_size, info.compress_size, partial(archive.open, info))


def tar_members(file: IO[bytes]) -> Iterator[Member]:
    """The plain files of a tar, found one after the other: what lies between their headers is not read. Raises
    DamagedError."""
    with _damage_explained(), tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            if info.isreg():
                yield Member(PurePosixPath(info.name).name, info.size, info.size, partial(archive.extractfile, info))


@contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise DamagedError(f"it is damaged: {printable(str(error))}") from error


def take(member: Member, part: Path, target: Path) -> None:
    """Write the bytes of `member` to `part`, which becomes `target`. Raises DamagedError or WriteError."""
    try:
        with part.open("wb") as new, _damage_explained():
            source = member.open()
            if source is None:
                raise DamagedError(f"{printable(member.name)} has no content")
            with source:
                shutil.copyfileobj(source, new, BLOCK_BYTES)
            new.flush()
            os.fsync(new.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
    except OSError as error:
        raise WriteError(f"cannot write {printable(str(target))}: {error.strerror}") from error


def fetch_model(model: Source, folder: Path) -> None:
    """Bring the weights into `folder`. Raises EvaError or OSError; the same call goes on after it."""
    repository = look_up(model.repo, model.revision, "model")
    missing = [file for file in repository.files if not (folder / file.path).is_file()]
    size = sum(file.size for file in missing)
    folder.mkdir(parents=True, exist_ok=True)
    check_room(repository, folder, size, size)
    for file in missing:
        download(repository, file, folder)
