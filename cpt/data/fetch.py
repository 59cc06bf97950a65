"""Fetching one file from the first of its mirrors that gives it whole and right; a broken transfer is resumed.

The bytes gather in ``<file>.part``, described by ``<file>.part.json``, and get the file's name when they are all there
and have the declared checksum. On request a further note remembers where a file came from.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from cpt.data.answers import (
    LONGEST_PAUSE,
    BrokenOffError,
    RefusedError,
    UnknownHostError,
    body_of,
    check_answer,
    check_status,
    first_byte,
    innermost,
    is_unknown_host,
    total_size,
    validator,
)
from cpt.data.part import Digests, Part, Source, size_mismatch
from cpt.errors import CptError
from cpt.files import write_json

if TYPE_CHECKING:
    import requests
    from filelock import BaseFileLock

Say = Callable[[str], None]

_PAGE = (b"<!doctype html", b"<html")
_SECONDS_BETWEEN_LINES = 2.0


@dataclass(frozen=True)
class Fetched:
    """A file that is there: its URL (or ``already there``), SHA-256 and size in bytes."""

    path: Path
    url: str
    sha256: str
    bytes: int


def fetch(
    sources: Sequence[Source],
    destination: Path,
    *,
    say: Say = print,
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
        say: takes the lines for the user.
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
    import requests

    if found := _already_there(sources, destination, note):
        return found
    bar = sys.stderr.isatty() if progress is None else progress
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(destination, say):
            if found := _already_there(sources, destination, note):
                return found
            failures = []
            with requests.Session() as session:
                transfer = _Transfer(session, destination, note, say, room, timeout, bar)
                for source in sources:
                    try:
                        return transfer.persist(source, attempts, wait)
                    except RefusedError as reason:
                        failures.append(f"{source.url}: {reason}")
                    except OSError:
                        with contextlib.suppress(OSError):
                            transfer.part.discard()
                        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "make room or choose another folder" if full else "mend that"
        raise CptError(f"{destination}: cannot be written ({error.strerror}); {mend} and run again") from None
    raise CptError(
        f"{destination.name}: {'; '.join(failures) or 'no address is known'}; "
        f"check the network or put the file at {destination} yourself"
    )


class _Transfer:
    """One file on its way."""

    def __init__(
        self,
        session: requests.Session,
        destination: Path,
        note: Path | None,
        say: Say,
        room: float,
        timeout: float,
        bar: bool,
    ) -> None:
        self.session, self.destination, self.note, self.say = session, destination, note, say
        self.room, self.timeout, self.bar = room, timeout, bar
        self.part = Part(destination)

    def persist(self, source: Source, attempts: int, wait: float) -> Fetched:
        """Try one mirror up to ``attempts`` times."""
        if not source.url.lower().startswith(("http://", "https://")):
            raise RefusedError("is no http or https address")
        for tries in range(1, attempts + 1):
            try:
                return self.attempt(source)
            except BrokenOffError as reason:
                if tries == attempts or (tries == 2 and isinstance(reason, UnknownHostError)):
                    raise RefusedError(f"{reason}, {tries} times") from None
                pause = min(LONGEST_PAUSE, max(wait * 2 ** (tries - 1), reason.after))
                self.say(f"{self.destination.name}: {reason}; trying again in {pause:.3g} s")
                sleep(pause)
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
            if record["url"] == source.url and record.get("validator"):
                headers["If-Range"] = record["validator"]
        with self._answer(source.url, headers) as answer:
            status, start = answer.status_code, start if answer.status_code != HTTPStatus.OK else 0
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                if total_size(answer) == start:
                    return self._finish(source, digests, start, resumed=True)
                return self._afresh(source)
            check_status(answer, resumed=bool(start))
            if "text/html" in answer.headers.get("Content-Type", "").lower() and not self._is_page_wanted():
                raise RefusedError("answered with a web page instead of the file")
            total = total_size(answer)
            if start and (first_byte(answer) != start or total != (self.part.record().get("total") or total)):
                return self._afresh(source)
            check_answer(answer, source, total)
            size = total if total is not None else source.bytes
            self._check_room(size, start)
            body = body_of(answer)
            head = next(body, b"")  # before the part is touched: a web page must not cost an old part
            if not start:
                if not head and source.bytes != 0:
                    raise RefusedError("answered with an empty file")
                if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE) and not self._is_page_wanted():
                    raise RefusedError("answered with a web page instead of the file")
                digests = Digests(source)
                self.part.begin(source, total, validator(answer.headers))
            got = self._receive(chain([head], body), digests, start, size)
        if size is not None and got < size:
            raise BrokenOffError(f"broke off after {got} of {size} bytes")
        return self._finish(source, digests, got, resumed=bool(start))

    def _answer(self, url: str, headers: dict[str, str]) -> requests.Response:
        import requests

        try:
            return self.session.get(url, headers=headers, stream=True, timeout=self.timeout)
        except requests.TooManyRedirects:
            raise RefusedError("redirects in a circle") from None
        except requests.Timeout:
            raise BrokenOffError(f"no answer within {self.timeout:g} s") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            kind = UnknownHostError if is_unknown_host(error) else BrokenOffError
            raise kind(f"no connection ({innermost(error)})") from None
        except (requests.RequestException, ValueError):  # ValueError: an address that cannot be parsed
            raise RefusedError("leads to an address that is not of http or https, or is malformed") from None

    def _receive(self, chunks: Iterator[bytes], digests: Digests, start: int, size: int | None) -> int:
        """Append chunks to the part; return the bytes it has then."""
        got = start
        with (
            open(self.part.path, "ab" if start else "wb") as file,
            _progress(self.destination.name, start, size, self.say, self.bar) as show,
        ):
            for chunk in chunks:
                got += len(chunk)
                if size is not None and got > size:
                    self.part.discard()
                    raise RefusedError(f"gives more than the expected {size} bytes")
                file.write(chunk)
                digests.update(chunk)
                show(got)
            file.flush()
            os.fsync(file.fileno())
        return got

    def _finish(self, source: Source, digests: Digests, size: int, resumed: bool) -> Fetched:
        wrong = digests.mismatch(source) or size_mismatch(source, size)
        if wrong:
            self.part.discard()
            if resumed:  # the old part may be what is wrong
                return self.attempt(source)
            raise RefusedError(wrong)
        sha256 = digests.sha256.hexdigest()
        if self.note is not None:
            with contextlib.suppress(CptError):  # which must not cost the file
                write_json(self.note, {"url": source.url, "sha256": sha256, "bytes": size})
        os.replace(self.part.path, self.destination)
        self.part.discard()
        return Fetched(self.destination, source.url, sha256, size)

    def _afresh(self, source: Source) -> Fetched:
        self.part.discard()
        return self.attempt(source)

    def _check_room(self, size: int | None, start: int) -> None:
        if size is None:
            return
        needed, folder = size - start + size * (self.room - 1), self.destination.parent
        free = shutil.disk_usage(folder).free
        if not start and self.part.path.exists():  # it will make way
            free += self.part.path.stat().st_size
        if needed > free:
            raise CptError(
                f"{self.destination}: needs {needed / 1e9:.3g} GB free in {folder}, which has {free / 1e9:.3g} GB; "
                "make room and run again"
            )

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
    origin = _origin(note)
    known = (origin.get("sha256"), origin.get("bytes")) == (sha256, size)
    url = next((source.url for source in fitting if known and source.url == origin["url"]), "already there")
    return Fetched(destination, url, sha256, size)


def _origin(note: Path | None) -> dict[str, Any]:
    """Return what a note remembers, nothing where there is none or it is damaged."""
    try:
        origin = json.loads(note.read_text(encoding="utf-8")) if note is not None else {}
    except (FileNotFoundError, ValueError):
        return {}
    return origin if isinstance(origin, dict) and "url" in origin else {}


def acquire(lock: BaseFileLock, say: Say, waiting: str) -> None:
    """Take a lock; ``waiting`` is said once where another process has it."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(waiting)
        lock.acquire()


@contextlib.contextmanager
def _locked(destination: Path, say: Say) -> Iterator[None]:
    from filelock import FileLock

    path = destination.with_name(f"{destination.name}.lock")
    lock = FileLock(path)
    acquire(lock, say, f"{destination.name}: another process is fetching it; waiting")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held; whoever waits for it sees that it is gone and makes a new one
        lock.release()


@contextlib.contextmanager
def _progress(name: str, start: int, size: int | None, say: Say, bar: bool) -> Iterator[Callable[[int], None]]:
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
    say(f"{name}: {'continuing' if start else 'beginning'} at {start / 1e6:.1f} MB{whole}")
    step = max(size // 10, 1) if size is not None else 10**8
    said, due = monotonic(), start + step

    def line(got: int) -> None:
        nonlocal said, due
        if got >= due and got != size and monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said, due = monotonic(), got + step
            percent = f" ({100 * got // size} %)" if size else ""
            say(f"{name}: {got / 1e6:.1f} MB{whole}{percent}")

    yield line
