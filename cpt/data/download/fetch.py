"""Fetching one file from the first of its mirrors that gives it whole and right; a broken transfer is resumed.

The bytes gather in ``<file>.part``, described by ``<file>.part.json``, and get the file's name when they are all there
and have the declared checksum. On request a further note remembers where a file came from.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cpt.data.download.partial import Digests, Source, read_note, size_mismatch
from cpt.data.download.responses import RefusedError
from cpt.data.download.transfer import Fetched, Log, Transfer
from cpt.errors import CptError

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)
"""What file systems without locks answer, such as some of NFS."""


def fetch(
    sources: Sequence[Source],
    destination: Path,
    *,
    log: Log = print,
    room: float = 1.0,
    timeout: float = 30,
    attempts: int = 5,
    wait: float = 1.0,
    progress: bool | None = None,
    note: Path | None = None,
) -> Fetched:
    """Fetch a file unless it is there, and check it. A file already present needs to match only one source.

    Another process that fetches the same file is waited for. An interrupted transfer leaves its part, which the next
    call continues; every other failure leaves nothing.

    Args:
        sources: mirrors, the best first.
        destination: the file's path; its folder is made.
        log: takes the lines for the user.
        room: bytes of free disk required per byte of the file (1: just the file; more if it will be unpacked); what is
            already downloaded counts.
        timeout: seconds without an answer or a byte.
        attempts: tries of one mirror; two at most while its name cannot be resolved.
        wait: seconds before the second try, doubled before each further one up to a minute.
        progress: show a bar on stderr instead of lines; None: if stderr is a terminal.
        note: JSON file that remembers where the file came from, for a later call that finds the file.

    Raises:
        CptError: no mirror gave the file, the disk is too small, or the file that is there is not a declared one.
    """
    from cpt.data.download.connection import Connection

    bar = sys.stderr.isatty() if progress is None else progress
    try:
        if found := _already_there(sources, destination, note):
            return found
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(destination, log), Connection(timeout) as connection:
            transfer = Transfer(connection, destination, note, log, room, bar)
            return _already_there(sources, destination, note) or _from_mirrors(transfer, sources, attempts, wait)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "make room or choose another folder" if full else "fix that"
        place = error.filename or destination
        raise CptError(f"{place}: cannot be written ({error.strerror}); {fix} and run again") from None


def _from_mirrors(transfer: Transfer, sources: Sequence[Source], attempts: int, wait: float) -> Fetched:
    failures = []
    for source in sources:
        try:
            return transfer.persist(source, attempts, wait)
        except RefusedError as reason:
            failures.append(f"{source.shown}: {reason}")
        except OSError:
            with contextlib.suppress(OSError):
                transfer.part.discard()
            raise
    place = transfer.destination
    raise CptError(
        f"{place.name}: {'; '.join(failures) or 'no address is known'}; "
        f"check the network or put the file at {place} yourself"
    )


def _already_there(sources: Sequence[Source], destination: Path, note: Path | None) -> Fetched | None:
    if not destination.exists():
        return None
    if not destination.is_file():
        raise CptError(f"{destination}: is no file; move it away and run again")
    size, digests = destination.stat().st_size, Digests(*sources)
    digests.update_from(destination)
    fitting = [source for source in sources if not (digests.mismatch(source) or size_mismatch(source, size))]
    if sources and not fitting:
        raise CptError(f"{destination}: is damaged or another version; delete it and run again")
    sha256 = digests.sha256.hexdigest()
    origin = read_note(note) if note is not None else {}
    known = (origin.get("sha256"), origin.get("bytes")) == (sha256, size)
    if known and any(source.shown == origin["url"] for source in fitting):
        return Fetched(origin["url"], sha256, size, origin.get("redirected_to"))
    return Fetched("already there", sha256, size)


@contextlib.contextmanager
def locked(path: Path, log: Log, waiting: str) -> Iterator[None]:
    """Hold a lock; ``waiting`` is said once where another process has it. File systems without locks go without."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(waiting)
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _locked(destination: Path, log: Log) -> Iterator[None]:
    path = destination.with_name(f"{destination.name}.lock")
    with locked(path, log, f"{destination.name}: another process is fetching it; waiting"):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is held; whoever waits for it sees that it is gone and makes a new one
