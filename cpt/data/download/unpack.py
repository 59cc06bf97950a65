"""Unpacking an archive that nobody vouches for: whole or not at all, and only plain files below one folder.

Members are written from their streams, so that links, owners and modes of an archive never come into being.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from cpt.data.download.archive import CHUNK, BadArchiveError, Member, damage, members_of, refusal
from cpt.errors import CptError

_LONGEST_PART = 255
_LONGEST_PATH = 3000
_DEEPEST = 100
_LONGEST_NAMES = 2**25
"""Characters of the paths of all files and folders together, which are kept in memory."""
_UNSEEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")
"""Control characters, and those that turn the direction of writing, by which a name reads as another one."""


def unpack(
    archive: Path,
    folder: Path,
    *,
    keep: Callable[[str], bool] | None = None,
    limit_bytes: int | None = None,
    limit_members: int = 500_000,
    nested: Sequence[str] = (),
) -> int:
    """Unpack a zip, or a tar of any compression, whatever its name, into a new folder; return the number of files.

    Args:
        archive: the archive.
        folder: must not exist or be empty; it appears when everything is unpacked.
        keep: says by its path whether a member is written; the others are checked all the same.
        limit_bytes: bytes that may be written; None: 4 times the archive's size and 1 GB.
        limit_members: members that there may be, folders that only their paths imply included.
        nested: fnmatch patterns of members that are archives: each is unpacked into the folder that holds it, under
            the same rules and limits, and removed. ``keep`` is asked about their members, not about them. There need
            be none: mirrors differ in what they pack once more.

    Raises:
        BadArchiveError: the archive is damaged or none, holds nothing or a member that is not harmless, or is too big.
        CptError: the archive is missing or cannot be read; the folder is not empty or cannot be written.
    """
    if not archive.is_file():
        raise CptError(f"{archive}: not found; fetch it again")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CptError(f"{folder}: is not empty; remove it and run again")
    place = folder.resolve()  # a link to an empty folder is followed: the rename would not replace it
    limit = 4 * archive.stat().st_size + 10**9 if limit_bytes is None else limit_bytes
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-"))
        job = _Job(temporary, keep or (lambda name: True), limit, limit_members, nested)
        job.unpack(archive, str(archive))
        if nested:
            job.unpack_nested(archive)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        temporary.rename(place)
    except OSError as error:
        raise CptError(f"{folder}: cannot be written ({error.strerror}); fix that and run again") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return len(job.written)


@dataclass
class _Job:
    """What has been admitted and written so far, of an archive and of those inside it."""

    root: Path
    keep: Callable[[str], bool]
    limit_bytes: int
    limit_members: int
    nested: Sequence[str]
    members: int = 0
    names: int = 0
    declared: int = 0
    written: dict[str, None] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    folders: dict[str, str] = field(default_factory=dict)

    def unpack(self, archive: Path, label: str, below: str = "") -> None:
        """Unpack one archive; ``below`` is the folder that it belongs in, empty or with a slash at its end."""
        before = self.members
        with members_of(archive, label, self.limit_members - self.members, self.limit_bytes) as members:
            admitted: Iterable[tuple[Member, str | None]] = ((m, self._admit(m, label, below)) for m in members)
            if isinstance(members, list):  # a zip lists its members, so that all are checked before one is written
                admitted = list(admitted)
            for member, path in admitted:
                if path is not None:
                    self._write(member, path, label)
        if self.members == before:
            raise BadArchiveError(f"{label}: holds nothing; delete it and fetch again")

    def unpack_nested(self, archive: Path) -> None:
        """Unpack the archives among the written files in place, and remove them."""
        inner = [path for path in self.written if self._is_nested(path)]
        self.nested = ()
        for path in inner:
            del self.written[path]
            folder, slash, _ = path.rpartition("/")
            self.unpack(self.root / path, f"{archive}: {path!r}", folder + slash)
            (self.root / path).unlink()

    def _is_nested(self, path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in self.nested)

    def _admit(self, member: Member, label: str, below: str) -> str | None:
        """Check a member; return the path to write it at, None if it is a folder or is skipped."""
        if fault := self._count(member.name) or member.fault or _fault(member.name):
            raise refusal(label, member.name, fault)
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if not parts and member.is_folder:
            return None
        path = below + "/".join(parts)
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise refusal(label, member.name, "has too long a name")
        if not parts or (fault := self._claim(path, member.is_folder)):
            raise refusal(label, member.name, fault or "has an empty name")
        junk = any(part in ("__MACOSX", ".DS_Store") or part.startswith("._") for part in parts)
        if member.is_folder or junk or not (self._is_nested(path) or self.keep(path)):
            return None
        self.declared += member.size
        if self.declared > self.limit_bytes:
            raise refusal(label, member.name, f"brings it to more than {self.limit_bytes} bytes")
        return path

    def _count(self, path: str) -> str | None:
        """Count a member or a folder that one implies; return what is wrong if there are too many."""
        self.members += 1
        self.names += len(path)
        if self.members > self.limit_members:
            return f"is beyond the {self.limit_members} members that may be"
        return f"brings all names to more than {_LONGEST_NAMES} characters" if self.names > _LONGEST_NAMES else None

    def _claim(self, path: str, is_folder: bool) -> str | None:
        """Note a path and the folders above it; return what is wrong if it is taken."""
        parts = unicodedata.normalize("NFC", path).split("/")
        spelt = path.split("/")
        for depth in range(1, len(parts) + is_folder):
            folder, spelling = "/".join(parts[:depth]), "/".join(spelt[:depth])
            if folder in self.files:
                return "needs a folder where there is a file"
            if folder not in self.folders and depth < len(parts) and (fault := self._count(folder)):
                return fault
            if self.folders.setdefault(folder, spelling) != spelling:
                return "differs from another name in the spelling of an accent only"
        key = "/".join(parts)
        if is_folder:
            return None
        if key in self.folders:
            return "is a file where there is a folder"
        if key in self.files:
            return "is there twice"
        self.files.add(key)
        return None

    def _write(self, member: Member, path: str, label: str) -> None:
        target = self.root / path
        with damage(label, member.name):
            stream = member.open()
        assert stream is not None
        got = 0
        with stream, _made(target, label, member.name) as file:
            while True:
                with damage(label, member.name):
                    chunk = stream.read(CHUNK)
                if not chunk:
                    break
                got += len(chunk)
                if got > member.size:  # and so the limit holds for what is written too
                    raise refusal(label, member.name, "is bigger than it says")
                file.write(chunk)
        with damage(label, member.name):
            if got < member.size:
                raise EOFError(f"{got} of {member.size} bytes")
        self.written[path] = None


def _made(path: Path, label: str, name: str) -> IO[bytes]:
    """Create a file and the folders above it. A name that the disk does not take is the archive's fault."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb")
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise refusal(label, name, f"has a name that this disk does not take ({error.strerror})") from None
        raise


def _fault(name: str) -> str | None:
    """Return what is wrong with a member's name, None if nothing."""
    parts = name.split("/")
    if not name:
        return "has an empty name"
    if _UNSEEN.search(name):
        return "has control characters in its name"
    if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name):
        return "has an absolute name"
    if "\\" in name:
        return "has a backslash in its name"
    if ".." in parts:
        return "leads out of its folder"
    if len(parts) > _DEEPEST or any(len(os.fsencode(part)) > _LONGEST_PART for part in parts):
        return "has too long a name"
    return None
