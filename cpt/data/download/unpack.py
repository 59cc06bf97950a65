"""Unpacking an archive that nobody vouches for: whole or not at all, and only plain files below one folder.

Members are written from their streams, so that links, owners and modes of an archive never come into being.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO

from cpt.errors import CptError

_CHUNK = 2**20
_LONGEST_PART = 255
_LONGEST_PATH = 3000
_DEEPEST = 100
_LONGEST_NAMES = 2**25
"""Characters of the paths of all files and folders together, which are kept in memory."""
_LONGEST_HEADER = 2**20
"""Bytes of all extensions of a member's header, and of all that hold for the members after them."""
_LARGEST_DIRECTORY = 2**28
"""Bytes of a zip's list of members, which is read into memory."""
_SPARSE_GOES_ON = 482
"""Position in the header of a sparse file of GNU's older format: blocks of further extents follow."""
_UNSEEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")
"""Control characters, and those that turn the direction of writing, by which a name reads as another one."""
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class BadArchiveError(CptError):
    """The archive itself will not do; another copy of it may."""


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


@dataclass(frozen=True)
class _Member:
    """A member as the archive describes it; ``fault`` says why it cannot be a file or a folder."""

    name: str
    size: int
    is_folder: bool
    open: Callable[[], IO[bytes] | None]
    fault: str | None


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
        with _members(archive, label, self.limit_members - self.members, self.limit_bytes) as members:
            admitted: Iterable[tuple[_Member, str | None]] = ((m, self._admit(m, label, below)) for m in members)
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

    def _admit(self, member: _Member, label: str, below: str) -> str | None:
        """Check a member; return the path to write it at, None if it is a folder or is skipped."""
        if fault := self._count(member.name) or member.fault or _fault(member.name):
            raise _refusal(label, member.name, fault)
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if not parts and member.is_folder:
            return None
        path = below + "/".join(parts)
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise _refusal(label, member.name, "has too long a name")
        if not parts or (fault := self._claim(path, member.is_folder)):
            raise _refusal(label, member.name, fault or "has an empty name")
        junk = any(part in ("__MACOSX", ".DS_Store") or part.startswith("._") for part in parts)
        if member.is_folder or junk or not (self._is_nested(path) or self.keep(path)):
            return None
        self.declared += member.size
        if self.declared > self.limit_bytes:
            raise _refusal(label, member.name, f"brings it to more than {self.limit_bytes} bytes")
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

    def _write(self, member: _Member, path: str, label: str) -> None:
        target = self.root / path
        with _damage(label, member.name):
            stream = member.open()
        assert stream is not None
        got = 0
        with stream, _made(target, label, member.name) as file:
            while True:
                with _damage(label, member.name):
                    chunk = stream.read(_CHUNK)
                if not chunk:
                    break
                got += len(chunk)
                if got > member.size:  # and so the limit holds for what is written too
                    raise _refusal(label, member.name, "is bigger than it says")
                file.write(chunk)
        with _damage(label, member.name):
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
            raise _refusal(label, name, f"has a name that this disk does not take ({error.strerror})") from None
        raise


class _Tar(tarfile.TarFile):
    """A tar that counts what tarfile keeps of extensions of headers: of those before a member, and of global ones."""

    before = 0
    shared = 0

    def count(self, header: tarfile.TarInfo) -> None:
        if header.type == tarfile.XGLTYPE:
            self.shared += header.size
        else:
            self.before = self.before + header.size if header.type in _EXTENSIONS else 0
        if (size := max(self.before, self.shared)) > _LONGEST_HEADER:
            raise tarfile.ReadError(f"headers of {size} bytes")


class _Header(tarfile.TarInfo):
    """A tar header of which a damaged one is an error: tarfile would take it for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the block of zeros that ends an archive
            raise tarfile.ReadError(str(error)) from None
        if header.size < 0 or (header.type in _EXTENSIONS and header.size > _LONGEST_HEADER):
            raise tarfile.ReadError(f"header of {header.size} bytes")  # tarfile reads these into memory
        if header.type == tarfile.GNUTYPE_SPARSE and buf[_SPARSE_GOES_ON]:
            raise tarfile.ReadError("sparse file with a map of any length")
        return header

    def _proc_member(self, tar: _Tar) -> tarfile.TarInfo:
        tar.count(self)
        return super()._proc_member(tar)  # type: ignore[misc]

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("sparse file with a map of any length")  # which tarfile reads into memory


@contextlib.contextmanager
def _members(archive: Path, label: str, limit_members: int, limit_bytes: int) -> Iterator[Iterable[_Member]]:
    """Open an archive; yield a list of the members of a zip, or the members of a tar one by one.

    A zip may have ``limit_members``, of which ZipFile keeps all; ``limit_bytes`` may come behind a tar's end.
    """
    with contextlib.ExitStack() as stack:
        with open(archive, "rb") as file:
            is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
            if is_zip:
                with _damage(label):
                    _require_few(file, label, limit_members)
        if is_zip:
            with _damage(label):
                archived = stack.enter_context(zipfile.ZipFile(archive))
            yield [_zip_member(archived, info) for info in archived.infolist()]
            return
        with _damage(label):
            try:
                tar = stack.enter_context(_Tar.open(archive, "r:*", tarinfo=_Header))
            except tarfile.ReadError:
                raise BadArchiveError(f"{label}: is no zip or tar archive; delete it and fetch again") from None
        yield _tar_members(tar, label, limit_bytes)


def _require_few(file: IO[bytes], label: str, limit: int) -> None:
    """Count the members of a zip where ZipFile will read them: what its end says of their number may be wrong."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # an own reader could find another end
    if end is None:
        return
    size, place = end[5], end[9]
    if size > _LARGEST_DIRECTORY:
        raise BadArchiveError(f"{label}: has a list of members of {size} bytes; fetch it again from its publisher")
    file.seek(place - size - (76 if end[0] == b"PK\6\6" else 0))
    while size > 0 and len(header := file.read(46)) == 46:
        limit -= 1
        if limit < 0:
            raise BadArchiveError(f"{label}: has more members than may be; fetch it again from its publisher")
        rest = sum(struct.unpack_from("<3H", header, 28))  # lengths of name, extra field and comment
        file.seek(rest, os.SEEK_CUR)
        size -= 46 + rest


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    # zipfile cuts names at a NUL
    name = info.orig_filename if "\0" in info.orig_filename else info.filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    fault = None
    if info.flag_bits & 0x1:
        fault = "is encrypted"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "is a link" if kind == stat.S_IFLNK else "is a device, FIFO or socket"
    return _Member(name, info.file_size, name.endswith("/"), partial(archive.open, info), fault)


def _tar_members(tar: tarfile.TarFile, label: str, limit_bytes: int) -> Iterator[_Member]:
    while True:
        with _damage(label):
            info = tar.next()
        if info is None:
            break
        tar.members.clear()  # type: ignore[attr-defined]  # kept, those of a big archive would fill gigabytes
        fault = None
        if info.issym() or info.islnk():
            fault = "is a link"
        elif not (info.isreg() or info.isdir()):
            fault = "is a device, FIFO or socket"
        elif info.size < 0:
            fault = "has a negative size"
        yield _Member(info.name, info.size, info.isdir(), partial(tar.extractfile, info), fault)
    with _damage(label):
        behind = 0  # the compressor's own checksum comes at the very end
        while tar.fileobj is not None and (chunk := tar.fileobj.read(_CHUNK)):
            behind += len(chunk)
            if behind > max(limit_bytes, _CHUNK):
                raise EOFError("too much behind its end")


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


def _refusal(label: str, name: str, fault: str) -> BadArchiveError:
    shown = name if len(name) <= 200 else f"{name[:200]}…"
    return BadArchiveError(f"{label}: member {shown!r} {fault}; do not use it, fetch it again from its publisher")


@contextlib.contextmanager
def _damage(label: str, name: str | None = None) -> Iterator[None]:
    """Turn what the readers raise on damaged bytes, which is anything, into one line."""
    try:
        yield
    except CptError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a seek to nowhere is damage
            raise CptError(f"{label}: cannot be read ({error.strerror}); fix that and run again") from None
        member = "" if name is None else f"member {name!r} "
        reason = "".join(c for c in " ".join(str(error).split()) if c.isprintable()) or type(error).__name__
        raise BadArchiveError(f"{label}: {member}is damaged ({reason}); delete it and fetch again") from None
