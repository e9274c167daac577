"""The videos of a dataset: from the Hub into their folder.

An archive is fetched, its wanted members are taken out, and it is deleted. So the disk needs room for the videos and
one archive. `.fetch/` in the folder of the videos holds the archive, and notes of what came from where.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from eva.dataset.archives import ArchiveError
from eva.dataset.hub import AbsentError, HubFile, Repository, download_all, look_up
from eva.dataset.items import Item
from eva.dataset.unpacking import Archive, Notes, Unpacker, archives_of, origin_of
from eva.dataset.videos_catalog import Model, Source, VideoSet
from eva.dataset.wanted import Wanted
from eva.errors import EvaError
from eva.files import replace_text
from eva.text import printable

WORK_FOLDER = ".fetch"
# Of an archive in pieces: the two in which a member may lie, and the last one, which has the directory of a zip.
PIECES_AT_ONCE = 3


class FetchVideosError(EvaError):
    """Videos that cannot be fetched; the message says why and what to do."""


@dataclass(frozen=True)
class Choices:
    """How to fetch. `agrees` asks whether to, unless `yes` says so."""

    mirror: bool
    keep_archives: bool
    yes: bool
    agrees: Callable[[], bool]


@dataclass(frozen=True)
class Need:
    """What a transfer takes: its files, their bytes, and the bytes of disk."""

    files: int
    transfer_bytes: int
    disk_bytes: int


def fetch_videos(videos: VideoSet, items: Sequence[Item], root: Path, choices: Choices) -> None:
    """Bring the missing videos of `items` into `root`. Raises EvaError or OSError; the same call goes on after it."""
    wanted = Wanted.of(items, root)
    work = root / WORK_FOLDER
    try:
        work.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(work / "lock", timeout=0):
            _remove_leftovers(wanted, work)
            missing = wanted.missing()
            total, absent = (sum(map(len, paths.values())) for paths in (wanted.paths, missing))
            print(f"{total} videos wanted in {root}, {absent} of them missing")
            if missing and not videos.sources:
                _print_commands(videos, wanted)
            elif missing:
                _fetch_missing(videos, wanted, work, choices)
    except filelock.Timeout:
        raise FetchVideosError(f"another process is fetching into {root}; wait for it to end") from None


def _remove_leftovers(wanted: Wanted, work: Path) -> None:
    """Delete what a killed process left. The Hub's library does not go on with a part of an archive."""
    wanted.remove_parts()
    for part in work.rglob("*.incomplete"):
        part.unlink()


def _print_commands(videos: VideoSet, wanted: Wanted) -> None:
    names = wanted.root / videos.names_file
    replace_text(names, "".join(f"{Path(name).stem}\n" for name in sorted(wanted.paths)))
    words = {"folder": shlex.quote(str(wanted.root)), "names": shlex.quote(str(names))}
    print(f"They are not on the Hub. Terms: {videos.terms} See {videos.page}. Then:")
    for command in videos.commands:
        print(f"  {command.format_map(words)}")


def _fetch_missing(videos: VideoSet, wanted: Wanted, work: Path, choices: Choices) -> None:
    source, repository = _find_repository(videos, choices)
    if source.kind != "files":
        wanted.link_twins()
    notes = Notes.read(work / "notes.json", repository.repo, repository.commit)
    unpacker = Unpacker(repository, wanted, wanted.missing(), notes, work, choices.keep_archives)
    if not unpacker.missing:
        return
    if source.kind == "files":
        transfer: _Files | _Archives = _Files.of(unpacker, source)
    else:
        transfer = _Archives.of(unpacker, source)
    need = transfer.need()
    if not need.files:
        raise FetchVideosError(f"{repository.repo} does not have the {len(unpacker.missing)} missing videos")
    _announce(need, repository, work)
    print(f"Terms: {videos.terms} See {videos.page}.")
    if not choices.yes and not choices.agrees():
        raise FetchVideosError("called off; no video was fetched (--yes agrees without a question)")
    notes.write()
    transfer.run()


def _find_repository(videos: VideoSet, choices: Choices) -> tuple[Source, Repository]:
    """The first repository that is there: a dataset may have moved, and a mirror may not know yet."""
    *first, last = (choices.mirror and videos.mirrors) or videos.sources
    for source in first:
        try:
            return source, look_up(source.repo, source.revision)
        except AbsentError as error:
            print(error, file=sys.stderr)
    return last, look_up(last.repo, last.revision)


def _announce(need: Need, repository: Repository, folder: Path) -> None:
    """Print what will be fetched. Raises FetchVideosError if the disk has no room for it."""
    free = shutil.disk_usage(folder).free
    room = f"about {_size(need.disk_bytes)} of disk needed, {_size(free)} free"
    print(f"{repository.repo} at {repository.commit:.8}: {_size(need.transfer_bytes)} in {need.files} files; {room}")
    if free < need.disk_bytes:
        raise FetchVideosError(f"the disk of {folder} is too small: {room}; make room, or choose another folder")


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@dataclass(frozen=True)
class _Archives:
    """Videos in archives."""

    unpacker: Unpacker
    archives: Sequence[Archive]
    share: float  # of the bytes of the archives that are wanted

    @classmethod
    def of(cls, unpacker: Unpacker, source: Source) -> _Archives:
        archives = archives_of(source, unpacker.repository)
        if not archives:
            raise FetchVideosError(f"{source.repo} has no files {source.files}: its layout has changed")
        return cls(unpacker, archives, len(unpacker.wanted.paths) / source.videos if source.videos else 1)

    def need(self) -> Need:
        unpacker = self.unpacker
        read = [piece for archive in self.archives for piece in unpacker.pieces_to_read(archive)]
        fetched = [piece.size for piece in read if not unpacker.is_there(piece)]
        at_once = max(min(len(archive.pieces), PIECES_AT_ONCE) for archive in self.archives)
        archive_bytes = sum(fetched if unpacker.keep else sorted(fetched)[-at_once:])
        video_bytes = sum(piece.size for piece in read) * min(self.share, 1)
        return Need(len(read), sum(fetched), int(video_bytes) + archive_bytes)

    def run(self) -> None:
        """Raises HubError, OSError or WriteError, or at its end FetchVideosError for damaged archives."""
        damaged = 0
        for archive in self.archives:
            if not self.unpacker.pieces_to_read(archive):
                continue
            try:
                print(f"{printable(archive.name)}: {self.unpacker.unpack(archive)} videos taken out")
            except ArchiveError as error:
                damaged += 1
                print(f"{printable(archive.name)}: {error}", file=sys.stderr)
                self.unpacker.delete(archive.pieces)
        if damaged:
            raise FetchVideosError(f"{damaged} archives were damaged; the same command fetches them again")


@dataclass(frozen=True)
class _Files:
    """Videos as plain files of the repository."""

    unpacker: Unpacker
    files: Sequence[tuple[HubFile, Path]]

    @classmethod
    def of(cls, unpacker: Unpacker, source: Source) -> _Files:
        there = {file.path: file for file in unpacker.repository.files}
        root = unpacker.wanted.root
        missing = [target for targets in unpacker.missing.values() for target in targets]
        paths = {target: f"{source.folder}/{target.relative_to(root).as_posix()}" for target in missing}
        return cls(unpacker, [(there[path], target) for target, path in paths.items() if path in there])

    def need(self) -> Need:
        sizes = [file.size for file, _ in self.files]
        return Need(len(sizes), sum(sizes), sum(sizes))

    def run(self) -> None:
        """Raises HubError or OSError."""
        for file, target in self.files:
            fetched = self.unpacker.download(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            fetched.replace(target)


def source_of(videos: VideoSet, root: Path) -> str:
    """Where the videos in `root` came from, as far as it is known."""
    return origin_of(root / WORK_FOLDER / "notes.json") or (videos.page if videos.commands else "-")


def fetch_model(model: Model, folder: Path) -> None:
    """Bring the weights into `folder`. Raises EvaError or OSError; the same call goes on after it."""
    repository = look_up(model.repo, model.revision, "model")
    sizes = [file.size for file in repository.files if not (folder / file.path).is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    _announce(Need(len(sizes), sum(sizes), sum(sizes)), repository, folder)
    download_all(repository, folder)
