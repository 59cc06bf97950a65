"""One file on its way from a mirror: requests, retries, the part that gathers its bytes, progress."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from cpt.data.download.partial import Digests, Part, Source, shown, size_mismatch
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

    from cpt.data.download.connection import Connection

Log = Callable[[str], None]

_PAGE = (b"<!doctype html", b"<html")
_SECONDS_BETWEEN_LINES = 2.0
_SPARE = 2 * 10**9
"""Bytes that stay free on the disk, or half of what was, while a body comes whose size nobody told."""


@dataclass(frozen=True)
class Fetched:
    """A file that is there.

    Args:
        url: its source's, as it may be shown, or ``already there``.
        sha256: hexadecimal checksum.
        bytes: size.
        redirected_to: the address that the bytes came from in the end, without its query, if it is another one.
    """

    url: str
    sha256: str
    bytes: int
    redirected_to: str | None = None

    @property
    def origin(self) -> dict[str, str | int]:
        """What records say of it."""
        origin: dict[str, str | int] = {"url": self.url, "sha256": self.sha256, "bytes": self.bytes}
        return origin | ({"redirected_to": self.redirected_to} if self.redirected_to else {})


@dataclass
class Transfer:
    """One file on its way; see ``fetch`` for what the other fields mean.

    Args:
        connection: asks the mirrors.
        progress: show a bar on stderr instead of lines.
    """

    connection: Connection
    destination: Path
    note: Path | None
    log: Log
    room: float
    progress: bool

    @property
    def part(self) -> Part:
        """The bytes had so far."""
        return Part(self.destination)

    def persist(self, source: Source, attempts: int, wait: float) -> Fetched:
        """Try one mirror up to ``attempts`` times. Any exception but a disk error is the mirror's fault."""
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
                whole = total_size(answer) == start
                return self._finish(source, digests, start, answer, resumed=True) if whole else self._afresh(source)
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
            _progress(self.destination.name, start, size, self.log, self.progress) as show,
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
        if wrong := digests.mismatch(source) or size_mismatch(source, size):
            if resumed:  # the old part may be what is wrong
                return self._afresh(source)
            self.part.discard()
            raise RefusedError(wrong)
        last = shown(answer.url).partition("?")[0] if answer.history else None  # a query may hold a signature
        fetched = Fetched(source.shown, digests.sha256.hexdigest(), size, last)
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


@contextlib.contextmanager
def _progress(name: str, start: int, size: int | None, log: Log, bar: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the bytes had so far and shows them, as a bar or as a line every tenth."""
    if bar:
        from rich import progress as rich
        from rich.console import Console

        columns = (rich.BarColumn, rich.DownloadColumn, rich.TransferSpeedColumn, rich.TimeRemainingColumn)
        name_and_rest = (rich.TextColumn("{task.description}"), *(column() for column in columns))
        with rich.Progress(*name_and_rest, console=Console(stderr=True)) as shown:
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
