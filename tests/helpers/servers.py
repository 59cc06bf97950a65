"""A web server on the loopback that answers as told: well, or with any of the mishaps of real mirrors."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

CHUNK = 4096


@dataclass(frozen=True)
class Mishap:
    """How one answer goes wrong. Every field alone is a mishap; they combine.

    Args:
        status: this status and ``headers``, with ``body`` or nothing.
        headers: headers added or replaced; None as a value leaves one out.
        body: these bytes instead of the file's.
        drop_after: the connection ends after so many bytes of the body.
        stall: seconds of silence before the connection ends so.
        corrupt: the first byte sent is another one.
        ignore_range: a request for a range is answered with the whole.
        shift: a range starts so many bytes further than was asked for.
        content_length: a ``Content-Length`` that is not the body's.
        delay: seconds before each chunk of 4096 bytes.
        silence: seconds before the answer.
        raw: these bytes instead of an answer, head and all.
        again: these bytes after ``raw``, over and over, with ``delay`` before each, until the client has had enough.
    """

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    drop_after: int | None = None
    stall: float = 0
    corrupt: bool = False
    ignore_range: bool = False
    shift: int = 0
    content_length: int | None = None
    delay: float = 0
    silence: float = 0
    raw: bytes | None = None
    again: bytes = b""


def redirect(url: str) -> Mishap:
    """Return a redirection."""
    return Mishap(status=302, headers={"Location": url})


PAGE = Mishap(body=b"<!DOCTYPE html>\n<html>Please log in</html>", headers={"Content-Type": "text/html; charset=utf-8"})


@dataclass
class Request:
    """A request as it came: ``target`` is the path, or the absolute URL if the server is used as a proxy."""

    method: str
    target: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class _File:
    body: bytes
    headers: Mapping[str, str | None]
    mishaps: list[Mishap]
    always: Mishap | None


class Server:
    """Serves bytes and, below them, the files of a folder; ``with Server() as server: ...``.

    Args:
        folder: its files are served under their paths.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.requests: list[Request] = []
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_": self}))
        self._httpd.daemon_threads = True
        self.root = f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    def add(
        self,
        path: str,
        body: bytes = b"",
        *mishaps: Mishap,
        always: Mishap | None = None,
        etag: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> str:
        """Serve a body; return its URL.

        Args:
            path: starts with a slash.
            body: the file.
            mishaps: how the first requests are answered, one each.
            always: how the requests after them are answered; None: well.
            etag: with its quotes.
            headers: further headers of every answer.
        """
        tag = {} if etag is None else {"ETag": etag}
        self._files[path] = _File(body, {**tag, **(headers or {})}, list(mishaps), always)
        return self.root + path

    def sent(self, path: str = "") -> int:
        """Return how many bytes of bodies were sent, for one path or all."""
        return sum(request.sent for request in self.requests if path in ("", request.target))

    def to(self, path: str) -> list[Request]:
        """Return the requests for a path."""
        return [request for request in self.requests if request.target == path]

    def find(self, path: str) -> tuple[_File, Mishap] | None:
        """Return what is served under a path, and the mishap whose turn it is."""
        with self._lock:
            file = self._files.get(path)
            if file is None and self.folder is not None and ".." not in path.split("/"):
                target = self.folder / unquote(path).lstrip("/")
                file = _File(target.read_bytes(), {}, [], None) if target.is_file() else None
            if file is None:
                return None
            mishap = file.mishaps.pop(0) if file.mishaps else file.always
            return file, mishap or Mishap()


class _Handler(BaseHTTPRequestHandler):
    server_: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        request = Request(self.command, self.path, {name.title(): value for name, value in self.headers.items()})
        self.server_.requests.append(request)
        found = self.server_.find(urlsplit(self.path).path)
        file, mishap = found or (_File(b"", {}, [], None), Mishap(status=404))
        time.sleep(mishap.silence)
        if mishap.raw is not None:
            self._speak(request, mishap)
            return
        body, status = file.body if mishap.body is None else mishap.body, mishap.status or 200
        headers: dict[str, str | None] = {"Content-Type": "application/octet-stream", "Connection": "close"}
        if mishap.status is not None and mishap.body is None:
            body = b""
        elif mishap.body is None:
            headers["Accept-Ranges"] = "bytes"
            status, body = self._range(file, mishap, headers)
        headers["Content-Length"] = str(len(body) if mishap.content_length is None else mishap.content_length)
        self._head(status, {**headers, **file.headers, **mishap.headers})
        if self.command == "GET":
            self._send(request, body, mishap)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _range(self, file: _File, mishap: Mishap, headers: dict[str, str | None]) -> tuple[int, bytes]:
        """Return the status and the bytes for ``Range: bytes=N-``; other forms are answered with the whole."""
        asked, condition = self.headers.get("Range", ""), self.headers.get("If-Range")
        validators = (file.headers.get("ETag"), file.headers.get("Last-Modified"))
        start = asked.removeprefix("bytes=").removesuffix("-")
        if mishap.ignore_range or not start.isdecimal() or (condition and condition not in validators):
            return 200, file.body
        size = len(file.body)
        if int(start) >= size:
            headers["Content-Range"] = f"bytes */{size}"
            return 416, b""
        headers["Content-Range"] = f"bytes {int(start) + mishap.shift}-{size - 1}/{size}"
        return 206, file.body[int(start) + mishap.shift :]

    def _head(self, status: int, headers: Mapping[str, str | None]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.close_connection = True
        self.end_headers()

    def _speak(self, request: Request, mishap: Mishap) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client has had enough
            self.wfile.write(mishap.raw or b"")
            while mishap.again:
                time.sleep(mishap.delay)
                request.sent += len(mishap.again)
                self.wfile.write(mishap.again)

    def _send(self, request: Request, body: bytes, mishap: Mishap) -> None:
        if mishap.corrupt and body:
            body = bytes([body[0] ^ 0xFF]) + body[1:]
        for start in range(0, len(body[: mishap.drop_after]), CHUNK):
            time.sleep(mishap.delay)
            chunk = body[: mishap.drop_after][start : start + CHUNK]
            request.sent += len(chunk)  # before it: the client may be done with the last one at once
            try:
                self.wfile.write(chunk)
            except OSError:  # the client has had enough
                request.sent -= len(chunk)
                return
        time.sleep(mishap.stall)
