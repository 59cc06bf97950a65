"""Asking web servers for a file: redirects are followed with their bodies unread, and every step has its time."""

from __future__ import annotations

import io
import math
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from time import monotonic
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests import exceptions
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy

from cpt.data.download.partial import Source, shown
from cpt.data.download.responses import BrokenOffError, RefusedError, UnknownHostError

CHUNK = 2**16
SECONDS = 60.0
"""Time for the head of an answer, and for each CHUNK of its body: who sends a byte now and then never times out."""
_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)


class Connection:
    """Requests for one file, from any of its mirrors.

    Args:
        timeout: seconds without an answer or a byte.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._clock = _Clock()
        self._session = _Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._clock))

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def get(self, source: Source, headers: Mapping[str, str]) -> requests.Response:
        """Ask for a file, and wherever its mirror sends us; return the answer, its body unread, and those before it.

        Raises:
            RefusedError: an address or a redirection will not do.
            BrokenOffError: no answer.
        """
        url, sent = source.url, dict(headers)
        history: list[requests.Response] = []
        while len(history) <= _MOST_REDIRECTS:
            answer = self._ask(url, sent)
            target = answer.headers.get("Location")
            if answer.status_code not in _REDIRECTS or target is None:
                answer.history = history
                return answer
            answer.close()
            history.append(answer)
            before, url = url, _joined(url, target)
            if (urlsplit(before).scheme, urlsplit(url).scheme) == ("https", "http") and not source.sha256:
                raise RefusedError("leads from https to http, where anybody could change the file; declare its sha256")
            password = answer.request.headers.get("Authorization")
            sent = dict(headers)
            if isinstance(password, str) and not self._session.should_strip_auth(before, url):
                sent["Authorization"] = password
        raise RefusedError(f"redirects more than {_MOST_REDIRECTS} times")

    def body(self, answer: requests.Response) -> Iterator[bytes]:
        """Yield the bytes as they were sent, until the end or until the connection ends."""
        while True:
            self._clock.start()
            try:
                chunk = answer.raw.read(CHUNK, decode_content=False)
            except Exception as error:  # what is no HTTP ends in exceptions of any kind
                reason = f"less than {CHUNK} bytes in {SECONDS:g} s" if self._clock.is_over() else _innermost(error)
                raise BrokenOffError(f"the connection broke off ({reason})") from None
            if not chunk:
                return
            yield chunk

    def _ask(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        try:
            request = self._session.prepare_request(requests.Request("GET", url, headers=headers))
            if urlsplit(url).scheme not in ("http", "https"):
                raise ValueError(url)
        except (requests.RequestException, ValueError):
            raise RefusedError("leads to an address that is not of http or https, or is malformed") from None
        options = self._session.merge_environment_settings(url, {}, True, None, None)
        self._clock.end = math.inf  # until there is a connection
        try:
            return self._session.send(request, timeout=self.timeout, allow_redirects=False, **options)
        except Exception as error:
            raise self._failure(error, select_proxy(url, options["proxies"])) from None

    def _failure(self, error: Exception, proxy: str | None) -> Exception:
        """Return what kept us from an answer; errors of the library tell it in many ways."""
        via = f" through the proxy {shown(proxy)}" if proxy else ""
        if self._clock.is_over():
            return BrokenOffError(f"no whole head of an answer within {SECONDS:g} s{via}")
        if isinstance(error, requests.Timeout):
            return BrokenOffError(f"no answer within {self.timeout:g} s{via}")
        if isinstance(error, exceptions.ConnectionError | exceptions.ChunkedEncodingError):
            kind = UnknownHostError if _is_unknown_host(error) else BrokenOffError
            return kind(f"no connection{via} ({_innermost(error)})")
        words = "".join(filter(str.isprintable, str(error))).strip(" .")
        if proxy and isinstance(error, exceptions.InvalidSchema):  # the file's own address has been parsed before
            return RefusedError(f"the proxy {shown(proxy)} of the environment cannot be used ({words}); unset it")
        if proxy and isinstance(error, exceptions.InvalidURL):
            return RefusedError("the address of the proxy of the environment is malformed; fix or unset it")
        return RefusedError(f"answered with what is no HTTP ({words or type(error).__name__})")


class _Session(requests.Session):
    """A session that leaves redirections alone: requests reads their bodies whole, and unpacked, into memory."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Clock:
    """The time at which the present step must be done."""

    end = math.inf

    def start(self) -> None:
        self.end = monotonic() + SECONDS

    def is_over(self) -> bool:
        return monotonic() > self.end


class _Adapter(HTTPAdapter):
    """Connections, direct or through any proxy, whose answers are read by the clock."""

    def __init__(self, clock: _Clock) -> None:
        class Answer(HTTPResponse):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                clock.start()
                self.fp = io.BufferedReader(_Timed(self.fp.detach(), clock))

        self._members = {"response_class": Answer}
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = type("Connection", (type(pool).ConnectionCls,), self._members)
        return pool


class _Timed(io.RawIOBase):
    """A socket's bytes until the clock is over: the socket's own timeout begins anew with each byte."""

    def __init__(self, raw: io.RawIOBase, clock: _Clock) -> None:
        self._raw, self._clock = raw, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._clock.is_over():
            raise TimeoutError("timed out")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _joined(url: str, target: str) -> str:
    """Return where a ``Location`` leads; its bytes are UTF-8 by custom, and have been read as Latin-1."""
    try:
        return urljoin(url, target.encode("latin-1").decode())
    except ValueError:
        raise RefusedError("leads to an address that is malformed") from None


def _innermost(error: BaseException) -> str:
    """Return the system's own words of a nested network error, which are short."""
    reason = "closed early"
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            reason = str(cause.strerror)
        elif isinstance(cause, TimeoutError):
            reason = "timed out"
        elif type(cause) is OSError:  # no error of the system: a proxy's refusal, missing certificates
            reason = str(cause)
    return " ".join(reason.split())


def _is_unknown_host(error: BaseException) -> bool:
    return any(isinstance(cause, socket.gaierror) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
