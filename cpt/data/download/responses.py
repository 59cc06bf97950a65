"""What the heads of web servers' answers say, also of servers that do not do as they should."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cpt.data.download.partial import Source, size_mismatch

if TYPE_CHECKING:
    import requests

LONGEST_PAUSE = 60.0
_RETRIED = (408, 425, 429)


class RefusedError(Exception):
    """This mirror will not do; the message is the reason."""


class BrokenOffError(Exception):
    """This mirror may do later, in ``after`` seconds at the earliest."""

    def __init__(self, reason: str, after: float = 0) -> None:
        super().__init__(reason)
        self.after = after


class UnknownHostError(BrokenOffError):
    """The mirror's name cannot be resolved, most likely because there is no network."""


def check_status(answer: requests.Response, resumed: bool) -> None:
    status = answer.status_code
    if status == HTTPStatus.OK or (status == HTTPStatus.PARTIAL_CONTENT and resumed):
        return
    phrase = f" {HTTPStatus(status).phrase}" if status in list(HTTPStatus) else ""
    if status in _RETRIED or status >= 500:
        raise BrokenOffError(f"HTTP {status}{phrase}", _retry_after(answer.headers.get("Retry-After", "")))
    raise RefusedError(f"HTTP {status}{phrase}")


def check_answer(answer: requests.Response, source: Source, total: int | None) -> None:
    if total is not None and (wrong := size_mismatch(source, total)):
        raise RefusedError(wrong)
    encoded = answer.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")
    # Old servers label .tar.gz files so, whose bytes are none the less the file's; a checksum tells in any case.
    labeled = urlsplit(source.url).path.lower().endswith((".gz", ".tgz"))
    if encoded and not (source.sha256 or source.md5 or labeled):
        raise RefusedError("answered with compressed bytes that nobody asked for")


def _retry_after(text: str) -> float:
    """Seconds that ``Retry-After`` asks to wait, given as seconds or as a date; 0 when it is neither."""
    seconds = _number(text)
    if seconds is not None:
        return min(LONGEST_PAUSE, float(seconds))
    when = _date(text)
    return min(LONGEST_PAUSE, max(0.0, (when - datetime.now(UTC)).total_seconds())) if when else 0.0


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else None


def validator(headers: Mapping[str, str]) -> str | None:
    """Return what ``If-Range`` may hold: a strong ETag, or a date of change that is surely past (RFC 9110, 8.8.2.2)."""
    tag = headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    changed, now = _date(headers.get("Last-Modified", "")), _date(headers.get("Date", ""))
    return headers["Last-Modified"] if changed and now and now - changed >= timedelta(seconds=1) else None


def total_size(answer: requests.Response) -> int | None:
    """Return the size of the whole file, None when the answer does not say."""
    if answer.status_code == HTTPStatus.OK:
        return _number(answer.headers.get("Content-Length", ""))
    found = re.fullmatch(r"\s*bytes\s.*/(.*)", answer.headers.get("Content-Range", ""), re.IGNORECASE)
    return _number(found[1]) if found else None


def first_byte(answer: requests.Response) -> int | None:
    found = re.match(r"\s*bytes\s+([0-9]+)-", answer.headers.get("Content-Range", ""), re.IGNORECASE)
    return _number(found[1]) if found else None
