"""Reading the members of an archive that nobody vouches for; what is no plain file or folder has a fault.

A reader never believes what would fill the memory: headers, lists of members and maps of sparse files are limited.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from cpt.errors import CptError

CHUNK = 2**20
_LONGEST_HEADER = 2**20
"""Bytes of all extensions of a member's header, and of all that hold for the members after them."""
_LARGEST_DIRECTORY = 2**28
"""Bytes of a zip's list of members, which is read into memory."""
_SPARSE_GOES_ON = 482
"""Position in the header of a sparse file of GNU's older format: blocks of further extents follow."""
_EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
)  # fmt: skip


class BadArchiveError(CptError):
    """The archive itself will not do; another copy of it may."""


@dataclass(frozen=True)
class Member:
    """A member as the archive describes it; ``fault`` says why it cannot be a file or a folder."""

    name: str
    size: int
    is_folder: bool
    open: Callable[[], IO[bytes] | None]
    fault: str | None


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
def members_of(archive: Path, label: str, limit_members: int, limit_bytes: int) -> Iterator[Iterable[Member]]:
    """Open an archive; yield a list of the members of a zip, or the members of a tar one by one.

    Args:
        archive: the file.
        label: what messages call it.
        limit_members: most members of a zip (ZipFile keeps them all in memory).
        limit_bytes: most bytes after a tar's end marker; a MiB always may be there.

    Raises:
        BadArchiveError: the file is neither, is damaged, or exceeds a limit.
        CptError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(archive, "rb"))
        if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06"):
            with damage(label):
                _require_few(file, label, limit_members)
                archived = stack.enter_context(zipfile.ZipFile(archive))
            yield [_zip_member(archived, info) for info in archived.infolist()]
            return
        with damage(label):
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


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    # zipfile cuts names at a NUL
    name = info.orig_filename if "\0" in info.orig_filename else info.filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    fault = "is encrypted" if info.flag_bits & 0x1 else None
    if not fault and kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "is a link" if kind == stat.S_IFLNK else "is a device, FIFO or socket"
    return Member(name, info.file_size, name.endswith("/"), partial(archive.open, info), fault)


def _tar_members(tar: tarfile.TarFile, label: str, limit_bytes: int) -> Iterator[Member]:
    while True:
        with damage(label):
            info = tar.next()
        if info is None:
            break
        tar.members.clear()  # type: ignore[attr-defined]  # kept, those of a big archive would fill gigabytes
        fault = "has a negative size" if info.size < 0 else None
        if not (info.isreg() or info.isdir()):
            fault = "is a link" if info.issym() or info.islnk() else "is a device, FIFO or socket"
        yield Member(info.name, info.size, info.isdir(), partial(tar.extractfile, info), fault)
    with damage(label):
        behind = 0  # the compressor's own checksum comes at the very end
        while tar.fileobj is not None and (chunk := tar.fileobj.read(CHUNK)):
            behind += len(chunk)
            if behind > max(limit_bytes, CHUNK):
                raise EOFError("too much behind its end")


def refusal(label: str, name: str, fault: str) -> BadArchiveError:
    shown = name if len(name) <= 200 else f"{name[:200]}…"
    return BadArchiveError(f"{label}: member {shown!r} {fault}; do not use it, fetch it again from its publisher")


@contextlib.contextmanager
def damage(label: str, name: str | None = None) -> Iterator[None]:
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
