"""Fetching one file from the first of its mirrors that gives it whole and right; a broken transfer is resumed.

The bytes gather in ``<file>.part``, described by ``<file>.part.json``, and get the file's name when they are all there
and have the declared checksum. On request a further note remembers where a file came from.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from cpt.data.download.partial import Digests, Part, Source, read_note, shown, size_mismatch
from cpt.data.download.responses import (
    LONGEST_PAUSE,
    BrokenOffError,
    RefusedError,
    UnknownHostError,
    check_answer,
    check_status,
    first_byte,
    total_size,
    validator,
)
from cpt.errors import CptError
from cpt.files.stage_files import write_json

if TYPE_CHECKING:
    import requests
    from filelock import BaseFileLock

    from cpt.data.download.connection import Connection

Log = Callable[[str], None]

_PAGE = (b"<!doctype html", b"<html")
_SECONDS_BETWEEN_LINES = 2.0
_SPARE = 2 * 10**9
"""Bytes that stay free on the disk, or half of what was, while a body comes whose size nobody told."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)
"""What file systems without locks answer, such as some of NFS."""


@dataclass(frozen=True)
class Fetched:
    """A file that is there.

    Args:
        path: the file.
        url: its source's, as it may be shown, or ``already there``.
        sha256: hexadecimal checksum.
        bytes: size.
        redirected_to: the address that the bytes came from in the end, without its query, if it is another one.
    """

    path: Path
    url: str
    sha256: str
    bytes: int
    redirected_to: str | None = None

    @property
    def origin(self) -> dict[str, str | int]:
        """What records say of it."""
        origin: dict[str, str | int] = {"url": self.url, "sha256": self.sha256, "bytes": self.bytes}
        return origin | ({"redirected_to": self.redirected_to} if self.redirected_to else {})


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
    """Fetch a file unless it is there, and check it. One that is there need only be what one of the sources declares.

    Another process that fetches the same file is waited for. An interrupted transfer leaves its part, which the next
    call continues; every other failure leaves nothing.

    Args:
        sources: mirrors, the best first.
        destination: the file's path; its folder is made.
        log: takes the lines for the user.
        room: free bytes needed for each byte of the file: 1, of which what is there of it counts, and what unpacking
            needs.
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
        with _locked(destination, log):
            if found := _already_there(sources, destination, note):
                return found
            failures = []
            with Connection(timeout) as connection:
                transfer = _Transfer(connection, destination, note, log, room, bar)
                for source in sources:
                    try:
                        return transfer.persist(source, attempts, wait)
                    except RefusedError as reason:
                        failures.append(f"{source.shown}: {reason}")
                    except OSError:
                        with contextlib.suppress(OSError):
                            transfer.part.discard()
                        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "make room or choose another folder" if full else "fix that"
        place = error.filename or destination
        raise CptError(f"{place}: cannot be written ({error.strerror}); {fix} and run again") from None
    raise CptError(
        f"{destination.name}: {'; '.join(failures) or 'no address is known'}; "
        f"check the network or put the file at {destination} yourself"
    )


class _Transfer:
    """One file on its way."""

    def __init__(
        self,
        connection: Connection,
        destination: Path,
        note: Path | None,
        log: Log,
        room: float,
        bar: bool,
    ) -> None:
        self.connection, self.destination, self.note, self.log = connection, destination, note, log
        self.room, self.bar = room, bar
        self.part = Part(destination)

    def persist(self, source: Source, attempts: int, wait: float) -> Fetched:
        """Try one mirror up to ``attempts`` times. Whatever it does is its own fault, but for the disk's errors."""
        if not source.url.lower().startswith(("http://", "https://")) or not source.url.isprintable():
            raise RefusedError("is no http or https address")
        for tries in range(1, attempts + 1):
            try:
                return self.attempt(source)
            except BrokenOffError as reason:
                if tries == attempts or (tries == 2 and isinstance(reason, UnknownHostError)):
                    raise RefusedError(f"{reason}, {tries} times") from None
                pause = min(LONGEST_PAUSE, max(wait * 2 ** (tries - 1), reason.after))
                self.log(f"{self.destination.name}: {reason}; trying again in {pause:.3g} s")
                sleep(pause)
            except (RefusedError, CptError, OSError):
                raise
            except Exception as error:
                raise RefusedError(f"answered with what makes no sense ({type(error).__name__})") from None
        raise AssertionError("attempts must be positive")

    def attempt(self, source: Source) -> Fetched:
        """Make one request, for the rest where there is a part that fits."""
        start = self.part.continues(source)
        digests = Digests(source)
        headers = {"Accept-Encoding": "identity"}  # else the bytes counted and hashed would not be the file's
        if start:
            digests.update_from(self.part.path)
            headers["Range"] = f"bytes={start}-"
            record = self.part.record()
            if record["url"] == source.shown and record.get("validator"):
                headers["If-Range"] = record["validator"]
        with self.connection.get(source, headers) as answer:
            status, start = answer.status_code, start if answer.status_code != HTTPStatus.OK else 0
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                if total_size(answer) == start:
                    return self._finish(source, digests, start, answer, resumed=True)
                return self._afresh(source)
            check_status(answer, resumed=bool(start))
            if "text/html" in answer.headers.get("Content-Type", "").lower() and not self._is_page_wanted():
                raise RefusedError("answered with a web page instead of the file")
            total = total_size(answer)
            if start and (first_byte(answer) != start or total != (self.part.record().get("total") or total)):
                return self._afresh(source)
            check_answer(answer, source, total)
            size = total if total is not None else source.bytes
            spare = self._check_room(source, size, start)
            body = self.connection.body(answer)
            head = next(body, b"")  # before the part is touched: a web page must not cost an old part
            if not start:
                if not head and source.bytes != 0:
                    raise RefusedError("answered with an empty file")
                if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE) and not self._is_page_wanted():
                    raise RefusedError("answered with a web page instead of the file")
                digests = Digests(source)
                self.part.begin(source, total, validator(answer.headers))
            got = self._receive(chain([head], body), digests, start, size, spare)
        if size is not None and got < size:
            raise BrokenOffError(f"broke off after {got} of {size} bytes")
        return self._finish(source, digests, got, answer, resumed=bool(start))

    def _receive(self, chunks: Iterator[bytes], digests: Digests, start: int, size: int | None, spare: int) -> int:
        """Append chunks to the part; return the bytes it has then."""
        got = start
        with (
            open(self.part.path, "ab" if start else "wb") as file,
            _progress(self.destination.name, start, size, self.log, self.bar) as show,
        ):
            for chunk in chunks:
                got += len(chunk)
                if size is not None and got > size:
                    self.part.discard()
                    raise RefusedError(f"gives more than the expected {size} bytes")
                if size is None and self._free() - len(chunk) < spare:
                    self.part.discard()
                    raise RefusedError(
                        f"tells no size and does not end: after {got / 1e9:.3g} GB, {spare / 1e9:.3g} GB are free"
                    )
                file.write(chunk)
                digests.update(chunk)
                show(got)
            file.flush()
            os.fsync(file.fileno())
        return got

    def _finish(self, source: Source, digests: Digests, size: int, answer: requests.Response, resumed: bool) -> Fetched:
        wrong = digests.mismatch(source) or size_mismatch(source, size)
        if wrong:
            self.part.discard()
            if resumed:  # the old part may be what is wrong
                return self.attempt(source)
            raise RefusedError(wrong)
        last = shown(answer.url).partition("?")[0] if answer.history else None  # a query may hold a signature
        fetched = Fetched(self.destination, source.shown, digests.sha256.hexdigest(), size, last)
        if self.note is not None:
            with contextlib.suppress(CptError, OSError):  # which must not cost the file
                write_json(self.note, fetched.origin)
        os.replace(self.part.path, self.destination)
        self.part.discard()
        return fetched

    def _afresh(self, source: Source) -> Fetched:
        self.part.discard()
        return self.attempt(source)

    def _check_room(self, source: Source, size: int | None, start: int) -> int:
        """Refuse what the disk has no room for; return the bytes that a body of unknown size must leave free."""
        free = self._free()
        if size is None:
            return min(_SPARE, free // 2)
        needed, folder = size - start + size * (self.room - 1), self.destination.parent
        if not start and self.part.path.exists():  # it will make way
            free += self.part.path.stat().st_size
        if needed > free:
            lack = f"needs {needed / 1e9:.3g} GB free in {folder}, which has {free / 1e9:.3g} GB"
            if source.bytes is None:  # only this mirror says so
                raise RefusedError(f"{lack}; make room")
            raise CptError(f"{self.destination}: {lack}; make room and run again")
        return 0

    def _free(self) -> int:
        return shutil.disk_usage(self.destination.parent).free

    def _is_page_wanted(self) -> bool:
        return self.destination.suffix.lower() in (".html", ".htm")


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
        return Fetched(destination, origin["url"], sha256, size, origin.get("redirected_to"))
    return Fetched(destination, "already there", sha256, size)


def acquire(lock: BaseFileLock, log: Log, waiting: str) -> None:
    """Take a lock; ``waiting`` is said once where another process has it. File systems without locks go without."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(waiting)
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


@contextlib.contextmanager
def _locked(destination: Path, log: Log) -> Iterator[None]:
    from filelock import FileLock

    path = destination.with_name(f"{destination.name}.lock")
    lock = FileLock(path)
    acquire(lock, log, f"{destination.name}: another process is fetching it; waiting")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held; whoever waits for it sees that it is gone and makes a new one
        lock.release()


@contextlib.contextmanager
def _progress(name: str, start: int, size: int | None, log: Log, bar: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the bytes had so far and shows them, as a bar or as a line every tenth."""
    if bar:
        from rich import progress as rich
        from rich.console import Console

        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.DownloadColumn(),
            rich.TransferSpeedColumn(),
            rich.TimeRemainingColumn(),
        )
        with rich.Progress(*columns, console=Console(stderr=True)) as shown:
            task = shown.add_task(name, total=size, completed=start)
            yield lambda got: shown.update(task, completed=got)
        return
    whole = f" of {size / 1e6:.1f} MB" if size is not None else ""
    log(f"{name}: {'continuing' if start else 'beginning'} at {start / 1e6:.1f} MB{whole}")
    step = max(size // 10, 1) if size is not None else 10**8
    said, due = monotonic(), start + step

    def line(got: int) -> None:
        nonlocal said, due
        if got >= due and got != size and monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said, due = monotonic(), got + step
            percent = f" ({100 * got // size} %)" if size else ""
            log(f"{name}: {got / 1e6:.1f} MB{whole}{percent}")

    yield line
