"""The videos of a dataset: from the Hub into their folder.

An archive of which most is missing is fetched as a whole, unpacked and deleted. Of other archives, only the parts with
missing videos are read, over the network. What is there is not fetched again: the same call goes on after each error.
"""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO

import filelock
from huggingface_hub.hf_api import RepoFile
from tqdm import tqdm

from eva.dataset.catalog import KnownDataset, Source
from eva.dataset.hub import DamagedError, HubError, RemotePieces, Repository, download, look_up
from eva.dataset.items import Item, locate_video, video_path
from eva.dataset.unpack import Member, put, take, tar_members, zip_members
from eva.errors import VideoError
from eva.files import replace_text
from eva.text import printable

# Small reads over the network, of headers, take this much at once.
HEADER_BYTES = 1 << 16

# Paths by their base name, under which archives have a video. Some of MLVU's are in two folders, and are one video.
Paths = dict[str, list[Path]]


def fetch_videos(
    known: KnownDataset, items: Iterable[Item], root: Path, *, mirror: bool, agrees: Callable[[], bool]
) -> None:
    """Bring the missing videos of `items` into `root`, if `agrees` says so. `.fetch/` in it holds what comes whole.

    Raises EvaError or OSError; the same call goes on after it.
    """
    wanted: Paths = {}
    for path in dict.fromkeys(video_path(item, root) for item in items):
        wanted.setdefault(path.name, []).append(path)
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root / ".fetch.lock", timeout=0):
        missing = _missing(wanted)
        total, absent = (sum(map(len, paths.values())) for paths in (wanted, missing))
        print(f"{total} videos wanted in {root}, {absent} of them missing")
        source = (mirror and known.mirror) or known.source
        if missing and source:
            _fetch_missing(source, f"Terms: {known.terms} See {known.page}.", missing, root, agrees)
        elif missing:
            names = root / known.names_file
            replace_text(names, "".join(f"{Path(name).stem}\n" for name in sorted(wanted)))
            print(f"They are not on the Hub. Terms: {known.terms} See {known.page}. Then:")
            for command in known.commands:
                print(f"  {command.format(folder=shlex.quote(str(root)), names=shlex.quote(str(names)))}")


def _missing(wanted: Paths) -> Paths:
    """The paths without a file, also without one in another container."""
    missing: Paths = {}
    for path in (path for paths in wanted.values() for path in paths):
        try:
            locate_video(path)
        except VideoError:
            missing.setdefault(path.name, []).append(path)
    return missing


@dataclass(frozen=True)
class _Job:
    """A video, or an archive with missing videos: the bytes to fetch, those of the videos (about), and those of an
    archive that is on the disk until it is unpacked. `run` takes the base names of the missing videos."""

    name: str
    transfer: int
    videos: int
    archive: int
    run: Callable[[Paths], None]


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
    damaged = sum(not _run(job, missing) for job in jobs)
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


def _run(job: _Job, missing: Paths) -> bool:
    """Whether the file was whole. Raises HubError, WriteError or OSError."""
    try:
        job.run(missing)
    except DamagedError as error:
        print(f"{printable(job.name)}: {error}", file=sys.stderr)
        return False
    print(f"{printable(job.name)}: done")
    return True


def _files(repository: Repository, source: Source, missing: Paths, root: Path) -> Iterator[_Job]:
    """Videos that are files of the repository."""
    there = {file.path: file for file in repository.files}
    for target in (target for targets in missing.values() for target in targets):
        file = there.get(f"{source.folder}/{target.relative_to(root).as_posix()}")
        if file:
            yield _Job(file.path, file.size, file.size, 0, partial(_bring, repository, file, root / ".fetch", target))


def _bring(repository: Repository, file: RepoFile, work: Path, target: Path, _: Paths) -> None:
    put(download(repository, file, work), [target])


def _archives(repository: Repository, source: Source, missing: Paths, root: Path) -> Iterator[_Job]:
    """The archives that have missing videos, in the order of their names."""
    files = tuple(file for file in repository.files if fnmatchcase(file.path, source.files))
    if not files:
        raise HubError(f"{source.repo} has no files {source.files}: its layout has changed")
    if source.kind == "tar-parts":
        # A tar does not say what is in it before it is read.
        share = sum(file.size for file in files) * len(missing) // max(source.videos, len(missing))
        yield _Job(
            source.files, share, share, 0, partial(_unpack, partial(_remote, repository, files), tar_members, root)
        )
        return
    for pieces in [(file,) for file in files] if source.kind == "zips" else [files]:
        opened = partial(_remote, repository, pieces)
        try:
            with opened() as file:
                found = [member for member in zip_members(file) if member.name in missing]
        except DamagedError as error:
            print(f"{printable(pieces[0].path)}: {error}", file=sys.stderr)
            continue
        transfer, archive = sum(member.packed for member in found), 0
        if len(pieces) == 1 and 2 * transfer > pieces[0].size:
            transfer = archive = pieces[0].size
            opened = partial(_fetched, repository, pieces[0], root / ".fetch")
        if found:
            videos = sum(member.size for member in found)
            yield _Job(pieces[0].path, transfer, videos, archive, partial(_unpack, opened, zip_members, root))


@contextmanager
def _remote(repository: Repository, pieces: tuple[RepoFile, ...]) -> Iterator[IO[bytes]]:
    with io.BufferedReader(RemotePieces(repository, pieces), HEADER_BYTES) as file:
        yield file


@contextmanager
def _fetched(repository: Repository, file: RepoFile, work: Path) -> Iterator[IO[bytes]]:
    """An archive that is fetched as a whole, and then deleted."""
    path = download(repository, file, work)
    try:
        with path.open("rb") as opened:
            yield opened
    finally:
        path.unlink()


def _unpack(
    opened: Callable[[], AbstractContextManager[IO[bytes]]],
    members: Callable[[IO[bytes]], Iterator[Member]],
    root: Path,
    missing: Paths,
) -> None:
    """Take the missing videos out of an archive. Raises DamagedError, HubError, WriteError or OSError."""
    part = root / ".fetch" / "part"
    # disable=None: no bar where stderr is not a terminal
    with opened() as file, tqdm(unit="B", unit_scale=True, disable=None) as bar:
        for member in members(file):
            if member.name in missing and member.problem:
                print(f"refused: {printable(member.path)} {member.problem}", file=sys.stderr)
            elif member.name in missing:
                take(member, part)
                put(part, missing[member.name])
                del missing[member.name]
                bar.update(member.size)
            if not missing:
                break


def fetch_model(model: Source, folder: Path) -> None:
    """Bring the weights into `folder`. Raises EvaError or OSError; the same call goes on after it."""
    repository = look_up(model.repo, model.revision, "model")
    missing = [file for file in repository.files if not (folder / file.path).is_file()]
    size = sum(file.size for file in missing)
    folder.mkdir(parents=True, exist_ok=True)
    check_room(repository, folder, size, size)
    for file in missing:
        download(repository, file, folder)
