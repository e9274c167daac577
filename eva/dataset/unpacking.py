"""Archives of a repository -> the wanted videos in their folder, and a note of what came from which archive."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path
from typing import Any

from eva.dataset.archives import Member, Pieces, tar_members, write_whole, zip_members
from eva.dataset.hub import HubFile, Repository, download
from eva.dataset.videos_catalog import Source
from eva.dataset.wanted import Wanted, link
from eva.errors import EvaError
from eva.files import replace_text
from eva.json_text import parse_json
from eva.text import printable


@dataclass(frozen=True)
class Archive:
    """One archive of a repository, whole or in pieces."""

    name: str
    pieces: tuple[HubFile, ...]
    members: Callable[[Pieces], Iterator[Member]]

    @property
    def is_stream(self) -> bool:
        """Whether it is read from begin to end. A zip has a directory."""
        return self.members is tar_members

    def pieces_from(self, place: int) -> tuple[HubFile, ...]:
        """The pieces that hold a byte from `place` on."""
        ends = accumulate(piece.size for piece in self.pieces)
        return tuple(piece for piece, end in zip(self.pieces, ends, strict=True) if end > place)


def archives_of(source: Source, repository: Repository) -> list[Archive]:
    """The archives with the videos, in the order of their names."""
    files = tuple(file for file in repository.files if fnmatchcase(file.path, source.files))
    if source.kind == "zips":
        return [Archive(file.path, (file,), zip_members) for file in files]
    members = {"tar-parts": tar_members, "zip-parts": zip_members}[source.kind]
    return [Archive(source.files, files, members)] if files else []


@dataclass
class Notes:
    """What came from where: for each archive the wanted names in it with the places where they begin, and how far it
    was read ("next"; None: to its end). They are kept in a file."""

    path: Path
    repo: str
    commit: str
    archives: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, repo: str, commit: str) -> Notes:
        """The notes at `path`, or empty ones if it has none of this commit. Raises EvaError for a damaged file."""
        content = _read(path)
        same = (content.get("repo"), content.get("commit")) == (repo, commit)
        return cls(path, repo, commit, content["archives"] if same else {})

    def write(self) -> None:
        content = {"repo": self.repo, "commit": self.commit, "archives": self.archives}
        replace_text(self.path, json.dumps(content) + "\n")

    def names(self, archive: Archive) -> dict[str, int]:
        """The wanted names that are known to be in the archive."""
        return dict(self.archives.get(archive.name, {}).get("names", {}))

    def next_place(self, archive: Archive, missing: Mapping[str, object]) -> int | None:
        """From where on the archive must be read to get the missing videos; None if it has none of them."""
        unread = self.archives.get(archive.name, {"next": 0})["next"]
        places = [place for name, place in self.names(archive).items() if name in missing]
        if not places and unread is None:
            return None
        return min([*places, *([] if unread is None else [unread])]) if archive.is_stream else 0

    def note(self, archive: Archive, names: Mapping[str, int], next_place: int | None) -> None:
        """Where an archive is read a second time, the part behind `next_place` stays known."""
        before = self.archives.get(archive.name, {"next": 0})["next"]
        unread = None if before is None or next_place is None else max(before, next_place)
        self.archives[archive.name] = {"names": dict(names), "next": unread}
        self.write()


def origin_of(notes: Path) -> str | None:
    """The repository and the commit that the videos came from. Raises EvaError for a damaged file."""
    content = _read(notes)
    return f"{content['repo']} at {content['commit']:.8}" if content else None


def _read(notes: Path) -> dict[str, Any]:
    try:
        content = parse_json(notes.read_text(encoding="utf-8"))
        return {"repo": str(content["repo"]), "commit": str(content["commit"]), "archives": dict(content["archives"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaError(f"{notes} cannot be read ({error}): delete it, and all archives are read again") from error


@dataclass(frozen=True)
class Unpacker:
    """Takes the missing videos out of archives. `work` is the folder of the archives."""

    repository: Repository
    wanted: Wanted
    missing: dict[str, list[Path]]
    notes: Notes
    work: Path
    keep: bool

    def pieces_to_read(self, archive: Archive) -> tuple[HubFile, ...]:
        """The pieces with missing videos, as far as it is known."""
        place = self.notes.next_place(archive, self.missing)
        return () if place is None else archive.pieces_from(place)

    def is_there(self, piece: HubFile) -> bool:
        """Whether a piece is in the work folder. The library of the Hub puts only whole files there."""
        return (self.work / piece.path).is_file()

    def unpack(self, archive: Archive) -> int:
        """Take the missing videos out of an archive, and delete it. Gives how many it took.

        Raises ArchiveError, HubError or WriteError. The same call goes on after each of them.
        """
        before = len(self.missing)
        names = self.notes.names(archive)
        place = self.notes.next_place(archive, self.missing)
        sizes = [piece.size for piece in archive.pieces]
        with closing(Pieces(sizes, lambda number: self.download(archive.pieces[number]), place or 0)) as pieces:
            for member in archive.members(pieces):
                self._let_go(archive, pieces.piece_at(member.offset), names, member.offset)
                self._take(member, names)
                place = member.offset
                if archive.is_stream and not self.missing:
                    break
            else:
                place = None
        self.notes.note(archive, names, place)
        if not self.keep:
            self.delete(archive.pieces)
        return before - len(self.missing)

    def download(self, file: HubFile) -> Path:
        """A file of the repository, in the work folder. Raises HubError."""
        return download(self.repository, file.path, self.work)

    def delete(self, pieces: Sequence[HubFile]) -> None:
        """Delete pieces, also where archives are kept."""
        for piece in pieces:
            (self.work / piece.path).unlink(missing_ok=True)

    def _let_go(self, archive: Archive, number: int, names: Mapping[str, int], place: int) -> None:
        """Delete the pieces before the one with this number, after a note that `place` is where to go on."""
        old = [piece for piece in archive.pieces[:number] if self.is_there(piece)]
        if old and not self.keep:
            self.notes.note(archive, names, place)
            self.delete(old)

    def _take(self, member: Member, names: dict[str, int]) -> None:
        if member.name not in self.wanted.paths:
            return
        if member.problem:
            print(f"refused: {printable(member.path)} {member.problem}", file=sys.stderr)
            return
        names[member.name] = member.offset
        if targets := self.missing.get(member.name):
            write_whole(member, targets[0])
            for other in targets[1:]:
                link(targets[0], other)
            del self.missing[member.name]
