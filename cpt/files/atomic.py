"""Writing a file as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cpt.errors import CptError
from cpt.files import trace
from cpt.files.hashes import digest_of_file


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` if the block succeeds, remove it if not.

    The temporary name keeps the suffix, because writers choose formats by it. The bytes are on the disk before the
    name is, so that a power loss leaves the old file or the new one. Their hash, too, is taken before: the trace tells
    what was written here, not what another process has put there since. Temporary files of writers that were killed are
    removed; those of living ones are locked.

    Raises:
        CptError: the disk is full, the file cannot be written, or what is there is no regular file.
    """
    temporary, handle = None, None
    try:
        _require_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_orphans(path)
        handle, temporary = _temporary(path)
        yield temporary
        if not os.path.samestat(os.fstat(handle), os.stat(temporary)):
            raise RuntimeError(f"{path}: its writer put another file in the place of the locked one")
        os.fsync(handle)
        hashes = trace.current().sha256
        sha256 = hashes.pop(os.path.abspath(temporary), None) or digest_of_file(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
        trace.current().written.add(os.path.abspath(path))
        hashes[os.path.abspath(path)] = sha256
    except Exception as error:
        if (problem := _unwritable(path, error)) is None:
            raise
        raise CptError(problem) from None
    finally:
        if handle is not None:
            os.close(handle)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _require_file(path: Path) -> None:
    """Refuse to put a file in the place of a device, FIFO, folder or a link to one, or of a link to an open file.

    The last are the system's, such as /dev/stdout, even where they lead to a regular file.
    """
    if (path.exists() and not path.is_file()) or (path.is_symlink() and os.readlink(path).startswith("/proc/")):
        raise CptError(f"{path}: is no regular file; give the path of a file")


def _temporary(path: Path) -> tuple[int, Path]:
    """Create a temporary file beside ``path`` and lock it; file systems without locks go without."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # removed as an orphan before it was locked


def remove_orphans(path: Path) -> None:
    """Remove the temporary files of writers of ``path`` that are dead: nobody holds their lock."""
    pattern = f".{glob.escape(path.stem)}-{'[a-z0-9_]' * 8}{glob.escape(path.suffix)}"
    for orphan in path.parent.glob(pattern):
        with contextlib.suppress(OSError):
            handle = os.open(orphan, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                orphan.unlink()
            finally:
                os.close(handle)


def _unwritable(path: Path, error: Exception) -> str | None:
    """One line about an error of writing the file; None for any other error.

    Libraries give it as OSError, or in words of their own. An OSError that names no file is of writing, unless it is of
    a connection, such as the pipe that progress goes to.
    """
    told = re.search(r"\b(?:os error|errno) (\d+)", str(error), re.IGNORECASE)
    number = getattr(error, "errno", None) or (told and int(told[1]))
    if not number or isinstance(error, CptError | ConnectionError | TimeoutError) or not _concerns(path, error):
        return None
    if number == errno.EFBIG:
        return f"{path}: cannot be written, it is larger than this process may write; raise `ulimit -f`"
    if number in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.exists())).free
        return f"{path}: cannot be written, the disk is full ({free / 1e6:,.1f} MB free); free some and run again"
    return f"{path}: cannot be written ({os.strerror(number)}); fix that and run again"


def _concerns(path: Path, error: Exception) -> bool:
    """Whether an error is of a file, its folders or its temporary name, by the names that it gives."""
    given = (getattr(error, name, None) for name in ("filename", "filename2"))
    named = [Path(os.path.abspath(os.fsdecode(name))) for name in given if isinstance(name, str | bytes)]
    whole = Path(os.path.abspath(path))
    temporary = str(whole.with_name(f".{path.stem}-"))
    ours = (name == whole or name in whole.parents or str(name).startswith(temporary) for name in named)
    return not named or any(ours)
