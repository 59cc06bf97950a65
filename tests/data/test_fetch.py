"""Fetching: every mishap of a mirror is recovered from or refused in one line, and leaves nothing behind."""

from __future__ import annotations

import base64
import errno
import fcntl
import gzip
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from cpt.data.download import connection, transfer
from cpt.data.download import responses as answers
from cpt.data.download.fetch import Fetched, Source, fetch
from cpt.errors import CptError
from tests.helpers.servers import PAGE, Mishap, Server, redirect

BODY = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()
DROP = Mishap(drop_after=100_000)


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "file.zip"


def run(target, *sources, **options):
    said: list[str] = []
    found = fetch(
        [source if isinstance(source, Source) else Source(source) for source in sources],
        target,
        **{"log": said.append, "wait": 0.01, "timeout": 20, "attempts": 3, "progress": False, **options},
    )
    return found, said


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def refused(target, *sources, left=(), **options):
    """Fetch, expect a failure, and return its one line."""
    with pytest.raises(CptError) as caught:
        run(target, *sources, **options)
    assert len(str(caught.value).splitlines()) == 1
    assert names(target) == sorted(left)
    return str(caught.value)


def arrived(target, body=BODY):
    return target.read_bytes() == body and names(target) == [target.name]


PART = ("file.zip.part", "file.zip.part.json")
LOGIN = "me:Xyzzy"


def test_a_file_is_fetched_and_checked(server, target):
    url = server.add("/a", BODY)
    found, said = run(target, Source(url, len(BODY), SHA256.upper(), MD5.upper()))
    assert found == Fetched(url, SHA256, len(BODY))
    assert arrived(target)
    assert said == ["file.zip: beginning at 0.0 MB of 0.3 MB"]
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_an_empty_file_comes_only_where_it_is_declared(server, target):
    url = server.add("/a", b"")
    assert "answered with an empty file" in refused(target, url)
    run(target, Source(url, 0))
    assert arrived(target, b"")


def test_a_size_that_is_not_told_is_no_problem(server, target):
    run(target, server.add("/a", BODY, headers={"Content-Length": None}))
    assert arrived(target)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_passing_failure_is_tried_again(server, target, status):
    _, said = run(target, server.add("/a", BODY, Mishap(status=status), Mishap(status=status)))
    assert arrived(target)
    assert len(server.requests) == 3
    assert [line for line in said if f"HTTP {status}" in line and "trying again in 0.0" in line] == said[:2]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_lasting_failure_goes_on_to_the_next_mirror_at_once(server, target, status):
    first = server.add("/a", BODY, always=Mishap(status=status))
    found, _ = run(target, first, server.add("/b", BODY))
    assert found.url.endswith("/b")
    assert len(server.to("/a")) == 1
    assert arrived(target)


def test_pauses_grow_are_capped_and_follow_retry_after(server, target, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(transfer, "sleep", pauses.append)
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    asked = [{}, {}, {"Retry-After": "7"}, {"Retry-After": "86400"}, {"Retry-After": later}, {"Retry-After": "soon"}]
    busy = [Mishap(status=503, headers=headers) for headers in asked]
    run(target, server.add("/a", BODY, *busy, *[Mishap(status=429)] * 4), wait=1.0, attempts=20)
    assert pauses[:4] == [1, 2, 7, 60]
    assert 20 < pauses[4] <= 30
    assert pauses[5:] == [32, 60, 60, 60, 60]


def test_a_broken_transfer_is_resumed(server, target):
    url = server.add("/a", BODY, DROP, DROP, etag='"one"')
    run(target, url)
    assert arrived(target)
    assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert [request.headers.get("If-Range") for request in server.requests] == [None, '"one"', '"one"']
    assert server.sent() == len(BODY)


def test_a_date_of_change_vouches_for_a_part_too(server, target):
    dates = {"Last-Modified": "Tue, 01 Jan 2019 00:00:00 GMT", "Date": "Wed, 01 Jan 2020 00:00:00 GMT"}
    run(target, server.add("/a", BODY, DROP, headers=dates))
    assert arrived(target)
    assert server.requests[1].headers["If-Range"] == dates["Last-Modified"]
    assert server.sent() == len(BODY)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_part_that_nothing_vouches_for_is_thrown_away(server, target, etag):
    run(target, server.add("/a", BODY, DROP, etag=etag))
    assert arrived(target)
    assert "Range" not in server.requests[1].headers


def test_a_checksum_vouches_for_a_part_without_validator(server, target):
    run(target, Source(server.add("/a", BODY, DROP), sha256=SHA256))
    assert arrived(target)
    assert server.sent() == len(BODY)


def test_the_next_call_resumes(server, target):
    url = server.add("/a", BODY, *[Mishap(drop_after=50_000)] * 2, etag='"one"')
    reason = refused(target, url, attempts=2, left=PART)
    assert f"{url}: broke off" in reason.replace("the connection broke off (closed early)", "broke off")
    assert str(target) in reason
    assert target.with_name(PART[0]).read_bytes() == BODY[:100_000]
    _, said = run(target, url)
    assert said == ["file.zip: continuing at 0.1 MB of 0.3 MB"]
    assert arrived(target)
    assert server.sent() == len(BODY)


def test_a_file_that_changed_meanwhile_starts_from_zero(server, target):
    url = server.add("/a", OTHER, DROP, etag='"one"')
    refused(target, url, attempts=1, left=PART)
    server.add("/a", BODY, etag='"two"')
    run(target, url)
    assert arrived(target)
    assert server.requests[-1].headers["If-Range"] == '"one"'


@pytest.mark.parametrize("mishap", [Mishap(ignore_range=True), Mishap(shift=7), Mishap(headers={"Content-Range": "x"})])
def test_a_wrong_answer_to_a_range_starts_from_zero(server, target, mishap):
    run(target, server.add("/a", BODY, DROP, mishap, etag='"one"'), attempts=2)
    assert arrived(target)


def test_a_part_of_the_whole_is_finished_without_its_body(server, target):
    url = server.add("/a", BODY, DROP, etag='"one"')
    refused(target, url, attempts=1, left=PART)
    target.with_name(PART[0]).write_bytes(BODY)
    sent = server.sent()
    found, _ = run(target, url)
    assert (found.sha256, server.sent()) == (SHA256, sent)
    assert arrived(target)


@pytest.mark.parametrize("part", [BODY + b"more", b"", OTHER, BODY[:10]])
def test_a_part_of_any_content_ends_in_the_right_file(server, target, part):
    url = server.add("/a", BODY, DROP, etag='"one"')
    refused(target, Source(url, sha256=SHA256), attempts=1, left=PART)
    target.with_name(PART[0]).write_bytes(part)
    run(target, Source(url, sha256=SHA256), attempts=1)
    assert arrived(target)


DAMAGED_NOTES = ["", "[]", "{}", "[" * 100_000, "9" * 5000, '{"a":' * 100_000, "\ud800", "null", "\0"]
FIELDS = [
    {"url": "http://elsewhere"}, {"url": 3}, {"url": None}, {"url": ["x"]}, {"total": "300000"}, {"total": [3]},
    {"validator": {"a": 1}}, {"validator": 7}, {"validator": '"one"\r\nX: y'}, {"validator": '"τ"'},
    {"validator": '"\ud800"'}, {"sha256": 5}, {"md5": ["x"]},
]  # fmt: skip


@pytest.mark.parametrize("note", [*DAMAGED_NOTES, *FIELDS, None], ids=range(len(DAMAGED_NOTES) + len(FIELDS) + 1))
def test_a_part_with_a_damaged_note_is_thrown_away(server, target, note):
    url = server.add("/a", BODY, DROP, etag='"one"')
    refused(target, url, attempts=1, left=PART)
    path = target.with_name(PART[1])
    if isinstance(note, dict):
        note = json.dumps(json.loads(path.read_text()) | note)
    path.unlink() if note is None else path.write_text(note, errors="surrogatepass")
    run(target, url)
    assert arrived(target)
    assert "Range" not in server.requests[-1].headers


def test_the_whole_is_asked_for_again_if_the_server_refuses_every_range(server, target):
    url = server.add("/a", BODY, DROP, Mishap(status=416), etag='"one"')
    run(target, url, attempts=2)
    assert arrived(target)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_another_mirror_continues_a_file_of_the_same_checksum(server, target, kind):
    digest = {kind: {"sha256": SHA256, "md5": MD5}[kind]}
    first, second = server.add("/a", BODY, DROP, etag='"one"'), server.add("/b", BODY, etag='"two"')
    run(target, Source(first, **digest), Source(second, **digest), attempts=1)
    assert arrived(target)
    request = server.to("/b")[0]
    assert (request.headers["Range"], "If-Range" in request.headers) == ("bytes=100000-", False)
    assert server.sent() == len(BODY)


@pytest.mark.parametrize("digest", [None, hashlib.sha256(OTHER).hexdigest()])
def test_another_mirror_starts_from_zero_without_the_same_checksum(server, target, digest):
    first, second = server.add("/a", BODY, DROP, etag='"one"'), server.add("/b", OTHER)
    run(target, Source(first, sha256=SHA256), Source(second, sha256=digest), attempts=1)
    assert arrived(target, OTHER)
    assert "Range" not in server.to("/b")[0].headers


def test_a_bad_part_of_a_first_mirror_does_not_spoil_a_good_second_one(server, target):
    bad = server.add("/a", BODY, Mishap(drop_after=100_000, corrupt=True))
    run(target, Source(bad, sha256=SHA256), Source(server.add("/b", BODY), sha256=SHA256), attempts=1)
    assert arrived(target)


def test_a_mirror_that_refuses_does_not_cost_the_part(server, target):
    first = server.add("/a", BODY, DROP, etag='"one"')
    gone, page = server.add("/b", always=Mishap(status=404)), server.add("/c", always=PAGE)
    hidden = server.add("/d", b" <HTML>log in</HTML>")
    refused(target, first, gone, page, hidden, attempts=1, left=PART)
    run(target, first)
    assert server.sent("/a") == len(BODY)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_goes_on_to_the_next_mirror(server, target, kind):
    digest = {kind: {"sha256": SHA256, "md5": MD5}[kind]}
    bad = server.add("/a", BODY, always=Mishap(corrupt=True))
    assert f"{bad}: has {kind} " in refused(target, Source(bad, **digest))
    assert len(server.requests) == 1
    found, _ = run(target, Source(bad, **digest), Source(server.add("/b", BODY), **digest))
    assert found.url.endswith("/b")
    assert arrived(target)


def test_another_size_is_refused_before_the_body(server, target):
    url = server.add("/a", BODY)
    assert f"{url}: has 300000 bytes instead of 299999" in refused(target, Source(url, 299_999))
    lying = server.add("/b", BODY, always=Mishap(content_length=400_000))
    assert "has 400000 bytes instead of 300000" in refused(target, Source(lying, 300_000))


def test_a_body_of_another_size_than_declared_is_refused(server, target):
    url = server.add("/a", BODY, headers={"Content-Length": None})
    assert "gives more than the expected 299999 bytes" in refused(target, Source(url, 299_999))
    assert "broke off after 300000 of 300001 bytes, 2 times" in refused(
        target, Source(url, 300_001), attempts=2, left=PART
    )


def test_fewer_bytes_than_content_length_are_an_interruption(server, target):
    url = server.add("/a", BODY, Mishap(content_length=400_000), Mishap(content_length=400_000))
    refused(target, url, attempts=2, left=PART)


@pytest.mark.parametrize(
    "page",
    [
        PAGE,
        Mishap(body=b"not even html", headers={"Content-Type": "Text/HTML"}),
        Mishap(body=b"\xef\xbb\xbf \r\n<!DocType HTML><p>quota exceeded"),
        Mishap(body=b"\n<HTML lang=en>"),
    ],
)
def test_a_web_page_is_not_the_file(server, target, page):
    url = server.add("/a", BODY, always=page)
    assert f"{url}: answered with a web page instead of the file" in refused(target, url)
    found, _ = run(target, url, server.add("/b", BODY))
    assert found.url.endswith("/b")


def test_a_web_page_is_the_file_where_one_is_wanted(server, tmp_path):
    run(tmp_path / "index.html", server.add("/a", always=PAGE))
    assert names(tmp_path / "index.html") == ["index.html"]


def test_bytes_are_not_decompressed(server, tmp_path):
    """The address says whether they are meant to be compressed: archives get a name of their own."""
    for path in ("/a.tar.gz", "/A.TGZ?download=1", "/a%20b.tgz"):
        target = tmp_path / "images.archive"
        server.add(path.partition("?")[0], BODY, headers={"Content-Encoding": "gzip"})
        run(target, server.root + path)
        assert target.read_bytes() == BODY
        target.unlink()
    for path in ("/a", "/a.zip?of=b.tgz", "/a.tgz/file"):
        server.add(path.partition("?")[0], BODY, headers={"Content-Encoding": "gzip"})
        reason = refused(tmp_path / "a.tar.gz", server.root + path)
        assert "compressed bytes that nobody asked for" in reason


def test_redirects_are_followed(server, target):
    found, _ = run(target, server.add("/a", always=redirect(server.add("/b", BODY, DROP, etag='"one"'))))
    assert found.url.endswith("/a")
    assert arrived(target)
    assert server.sent() == len(BODY)


def test_the_last_address_is_remembered_without_what_may_be_a_secret(server, target):
    note = target.with_name("origin.json")
    server.add("/c/d", BODY)
    moved = server.root.replace("//", f"//{LOGIN}@") + "/c/d?signature=secret"
    url = server.add("/a", always=redirect("b?x=y"))
    server.add("/b", always=redirect(moved))
    found, _ = run(target, url, note=note)
    assert found == Fetched(url, SHA256, len(BODY), f"{server.root}/c/d")
    assert run(target, url, note=note)[0] == found
    assert "Xyzzy" not in note.read_text() + repr(found)
    assert "secret" not in note.read_text() + repr(found)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_body_of_a_redirect_is_not_read(server, target, status):
    """One without end: it would fill the memory."""
    url = server.add("/b", BODY)
    head = f"HTTP/1.1 {status} Found\r\nLocation: {url}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    run(target, server.add("/a", always=Mishap(raw=head, again=b"10000\r\n" + bytes(0x10000) + b"\r\n")))
    assert arrived(target)
    assert server.sent("/a") < 50_000_000, "what the sockets hold"


def test_the_body_of_a_redirect_is_not_decompressed(server, target):
    body = gzip.compress(bytes(50_000_000))
    headers = {"Location": server.add("/b", BODY), "Content-Encoding": "gzip"}
    url = server.add("/a", always=Mishap(body=body, status=302, headers=headers))
    tracemalloc.start()
    try:
        run(target, url)
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()
    assert arrived(target)


def test_ten_redirects_are_followed_and_no_more(server, target):
    server.add("/10", BODY)
    for i in range(10):
        server.add(f"/{i}", always=redirect(f"/{i + 1}"))
    url = server.add("/start", always=redirect("/0"))
    assert f"{url}: redirects more than 10 times" in refused(target, url)
    run(target, f"{server.root}/0")
    assert arrived(target)


def test_a_password_goes_along_to_the_same_host_only(server, target):
    with Server() as other:
        server.add("/a", always=redirect(f"{server.root}/b"))
        server.add("/b", always=redirect(other.add("/c", BODY)))
        run(target, f"{server.root}/a".replace("//", f"//{LOGIN}@"))
        assert "Authorization" not in other.requests[0].headers
    expected = "Basic " + base64.b64encode(LOGIN.encode()).decode()
    assert [request.headers["Authorization"] for request in server.requests] == [expected] * 2


@pytest.fixture
def plain_https(monkeypatch):
    """https without encryption, since no certificate is at hand."""
    from urllib3 import HTTPSConnectionPool
    from urllib3.connection import HTTPConnection

    class Plain(HTTPConnection):
        is_verified = True

        def __init__(self, host, port, timeout, **_):
            super().__init__(host, port, timeout=timeout)

    monkeypatch.setattr(HTTPSConnectionPool, "ConnectionCls", Plain)


@pytest.mark.usefixtures("plain_https")
def test_a_redirect_from_https_to_http_needs_a_checksum(server, target):
    """Anybody on the way could change the file."""
    secure = server.root.replace("http", "https")
    server.add("/a", always=redirect(server.add("/b", BODY)))
    for source in (f"{secure}/a", Source(f"{secure}/a", len(BODY), md5=MD5)):
        assert f"{secure}/a: leads from https to http" in refused(target, source)
    assert not server.to("/b")
    found, _ = run(target, Source(f"{secure}/a", sha256=SHA256))
    assert found.redirected_to == f"{server.root}/b"
    target.unlink()
    server.add("/c", always=redirect(f"{secure}/b"))
    found, _ = run(target, f"{server.root}/c")
    assert found.redirected_to == f"{secure}/b", "the other direction"


def test_redirects_in_a_circle_end(server, target):
    url = server.add("/a", always=redirect("/a"))
    assert f"{url}: redirects more than 10 times" in refused(target, url)


@pytest.mark.parametrize("elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "http://[bad/"])
def test_redirects_lead_to_http_only(server, target, elsewhere):
    assert "leads to an address" in refused(target, server.add("/a", always=redirect(elsewhere)))


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"
ODD_ANSWERS = {
    "two lengths": Mishap(raw=OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    "negative chunk": Mishap(raw=CHUNKED + b"-4\r\nabcd\r\n0\r\n\r\n"),
    "no chunk": Mishap(raw=CHUNKED + b"wrong\r\nabcd\r\n0\r\n\r\n"),
    "no http": Mishap(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nothing": Mishap(raw=b""),
    "status": Mishap(raw=b"HTTP/1.1 99999 Odd\r\n\r\n"),
    "many headers": Mishap(raw=OK + b"X: y\r\n" * 1000 + b"\r\n"),
    "long header": Mishap(raw=OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n"),
    "location": Mishap(raw=b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\nContent-Length: 0\r\n\r\n"),
    "far date": Mishap(status=503, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 +9999999999999"}),
    "long pause": Mishap(status=503, headers={"Retry-After": "9" * 5000}),
    "empty": Mishap(body=b""),
}


@pytest.mark.parametrize("odd", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_whatever_a_mirror_answers_is_one_line_and_the_next_is_asked(server, target, odd, monkeypatch):
    monkeypatch.setattr(transfer, "sleep", lambda seconds: None)
    url = server.add("/a", BODY, always=odd)
    assert f"{url}: " in refused(target, url)
    found, _ = run(target, url, server.add("/b", BODY))
    assert found.url.endswith("/b")
    assert arrived(target)


@pytest.mark.parametrize("headers", [
    {"Content-Length": "9" * 5000}, {"Content-Length": "-5"}, {"Content-Length": "many"},
    {"Last-Modified": "Thu, 01 Jan 1970 00:00:00 +9999999999999", "Date": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"Last-Modified": "Thu, 01 Jan 0001 00:00:00 +2300", "Date": "Fri, 31 Dec 9999 23:59:59 -2300"},
    {"ETag": '"\x85\u00e9"'},
])  # fmt: skip
def test_odd_headers_of_a_good_file_do_not_matter(server, target, headers):
    run(target, server.add("/a", BODY, headers=headers))
    assert arrived(target)


@pytest.mark.parametrize("of", ["bytes 100000-299999/" + "9" * 5000, "bytes " + "1" * 5000 + "-299999/300000"])
def test_odd_ranges_start_from_zero(server, target, of):
    run(target, server.add("/a", BODY, DROP, Mishap(headers={"Content-Range": of}), etag='"one"'), attempts=2)
    assert arrived(target)


def test_an_error_that_nobody_thought_of_is_that_mirrors(server, target, monkeypatch):
    def fail(answer, resumed):
        if answer.url.endswith("/a"):
            raise ZeroDivisionError
        return answers.check_status(answer, resumed)

    monkeypatch.setattr(transfer, "check_status", fail)
    first = server.add("/a", BODY)
    assert f"{first}: answered with what makes no sense (ZeroDivisionError)" in refused(target, first)
    run(target, first, server.add("/b", BODY))
    assert arrived(target)


SLOW = {
    "body": Mishap(raw=OK + b"Content-Length: 300000\r\n\r\n", again=b"x", delay=0.02),
    "head": Mishap(raw=OK + b"X: ", again=b"y", delay=0.02),
    "continue": Mishap(raw=b"", again=b"HTTP/1.1 100 Continue\r\n\r\n", delay=0.001),
    "trailers": Mishap(raw=CHUNKED + b"3\r\nabc\r\n0\r\n", again=b"X: y\r\n", delay=0.001),
    "redirect": Mishap(raw=b"HTTP/1.1 302 Found\r\nX: ", again=b"y", delay=0.02),
}


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
def test_a_mirror_that_never_ends_gives_way_to_the_next(server, target, slow, monkeypatch):
    """Each byte comes before the timeout."""
    monkeypatch.setattr(connection, "SECONDS", 0.3)
    url = server.add("/a", BODY, always=slow)
    assert "in 0.3 s), 1 times" in (reason := refused(target, url, attempts=1)) or "within 0.3 s, 1 times" in reason
    run(target, url, server.add("/b", BODY), attempts=1)
    assert arrived(target)


def test_a_slow_mirror_that_goes_on_is_waited_for(server, target, monkeypatch):
    """The time is for 65,536 bytes, not for the file."""
    monkeypatch.setattr(connection, "SECONDS", 1)
    monkeypatch.setattr(connection, "CHUNK", 4096)
    run(target, server.add("/a", BODY, always=Mishap(delay=0.02)), attempts=1)
    assert arrived(target)


def test_a_body_without_end_or_size_leaves_room_on_the_disk(server, target, monkeypatch):
    url = server.add("/a", always=Mishap(raw=CHUNKED, again=CHUNK))
    part = target.with_name(PART[0])

    def usage(folder):
        return SimpleNamespace(free=10_000_000 - (part.stat().st_size if part.exists() else 0))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert f"{url}: tells no size and does not end: after 0.005" in refused(target, url)
    run(target, url, server.add("/b", BODY, headers={"Content-Length": None}))
    assert arrived(target)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd", "", "http://a/x\ny"])
def test_addresses_are_of_http_only(target, url):
    assert "is no http or https address" in refused(target, url)
    assert "leads to an address" in refused(target, "http://")


def test_no_address_is_one_line(target):
    assert "no address is known" in refused(target)


def test_silence_and_absence_are_told_from_each_other(server, target):
    url = server.add("/a", BODY, always=Mishap(silence=1))
    assert f"{url}: no answer within 0.1 s, 2 times" in refused(target, url, timeout=0.1, attempts=2)
    with Server() as gone:
        pass
    assert "no connection (Connection refused), 2 times" in refused(target, gone.root, attempts=2)


def test_a_host_without_address_is_tried_twice_at_most(target, monkeypatch):
    """Offline: else every source would cost all its attempts and their pauses."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    pauses: list[float] = []
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(transfer, "sleep", pauses.append)
    reason = refused(target, "http://one.example/x", "https://two.example/x", attempts=5, wait=1)
    assert reason.count("no connection (Name or service not known), 2 times") == 2
    assert pauses == [1, 1]
    assert "Name or service not known), 1 times" in refused(target, "http://one.example/x", attempts=1)


def test_a_stalled_body_is_resumed(server, target):
    _, said = run(target, server.add("/a", BODY, Mishap(drop_after=100_000, stall=1), etag='"one"'), timeout=0.2)
    assert "the connection broke off (timed out)" in said[1]
    assert server.requests[1].headers["Range"] == "bytes=65536-"
    assert arrived(target)


def test_every_mirror_is_named_with_its_reason(server, target):
    first, second = server.add("/a", always=Mishap(status=404)), server.add("/b", always=PAGE)
    assert refused(target, first, second) == (
        f"file.zip: {first}: HTTP 404 Not Found; {second}: answered with a web page instead of the file; "
        f"check the network or put the file at {target} yourself"
    )


def test_too_little_room_is_told_before_the_first_byte(server, target, monkeypatch):
    url = server.add("/a", BODY, Mishap(drop_after=0))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=500_000))
    reason = refused(target, Source(url, len(BODY)), Source(url, len(BODY)), room=2.0)
    assert reason == (
        f"{target}: needs 0.0006 GB free in {target.parent}, which has 0.0005 GB; make room and run again"
    )
    assert len(server.requests) == 1
    server.requests.clear()
    server.add("/a", BODY, Mishap(drop_after=0))
    assert f"{url}: needs 0.0006 GB free in {target.parent}" in refused(target, url, url, room=2.0)
    assert len(server.requests) == 2, "what only a mirror says may be wrong"
    run(target, url, room=1.5)
    assert arrived(target)


def test_only_the_rest_needs_room(server, target, monkeypatch):
    url = server.add("/a", BODY, DROP, etag='"one"')
    refused(target, url, attempts=1, left=PART)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=199_999))
    assert "needs 0.0002 GB" in refused(target, url, left=PART)
    fresh = server.add("/b", BODY)  # for which the part makes way
    assert "which has 0.0003 GB" in refused(target, fresh, left=PART)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=200_000))
    run(target, url)
    assert arrived(target)


def test_what_unpacking_needs_is_asked_for_after_a_resumption_too(server, target, monkeypatch):
    """200,000 of 300,000 bytes are to come, and 1.5 times the whole is to be unpacked."""
    url = server.add("/a", BODY, DROP, etag='"one"')
    refused(target, url, attempts=1, left=PART)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=649_999))
    assert "needs 0.00065 GB" in refused(target, url, left=PART, room=2.5)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=650_000))
    run(target, url, room=2.5)
    assert arrived(target)


def test_a_full_disk_is_one_line(server, target, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    reason = refused(target, server.add("/a", BODY))
    assert reason.startswith(f"{target}: cannot be written (No space left on device); make room")


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "new").write_text("a file")
    with pytest.raises(CptError, match="cannot be written"):
        run(tmp_path / "new" / "a.zip", server.add("/a", BODY))


def test_a_file_that_is_there_is_checked_and_kept(server, target):
    url = server.add("/a", BODY)
    run(target, url)
    known = [Source(url, 5), Source(url, sha256="0" * 64), Source(url, len(BODY), SHA256, MD5)]
    assert run(target, *known)[0] == Fetched("already there", SHA256, len(BODY))
    assert run(target, url)[0].url == "already there"
    wrong = [Source(url, 5), Source(url, sha256="0" * 64), Source(url, md5="0" * 32)]
    for sources in ([wrong[0]], [wrong[1]], [wrong[2]], wrong):
        reason = refused(target, *sources, left=["file.zip"])
        assert reason == f"{target}: is damaged or another version; delete it and run again"
    assert run(target, *wrong, Source(url))[0].url == "already there", "it may be that of the source without checksum"
    assert len(server.requests) == 1


def test_a_note_remembers_where_a_file_came_from(server, target):
    note = target.with_name("origin.json")
    pinned, free = Source("http://127.0.0.1:9/x", 5), server.add("/a", BODY)
    run(target, Source(server.add("/b", always=Mishap(status=404)), 5), free, note=note)
    assert json.loads(note.read_text()) == {"url": free, "sha256": SHA256, "bytes": len(BODY)}
    assert run(target, pinned, free, note=note)[0] == Fetched(free, SHA256, len(BODY))
    assert run(target, pinned, Source(free, len(BODY), SHA256), note=note)[0].url == free
    assert run(target, server.root + "/else", note=note)[0].url == "already there", "no longer a source"
    reason = refused(target, pinned, Source(free, sha256="0" * 64), note=note, left=["file.zip", note.name])
    assert "is damaged or another version" in reason
    target.write_bytes(OTHER)
    assert run(target, pinned, free, note=note)[0].url == "already there", "put there by hand"
    for text in (*DAMAGED_NOTES, '{"url": 3, "sha256": null}'):
        note.write_text(text, errors="surrogatepass")
        assert run(target, pinned, free, note=note)[0].url == "already there"
    note.unlink()
    note.mkdir()
    assert run(target, pinned, free, note=note)[0].url == "already there"


def test_a_note_that_cannot_be_written_does_not_cost_the_file(server, target):
    (target.parent.parent / "file").write_text("in the way")
    (target.parent.parent / "folder").mkdir()
    for note in ("file/origin.json", "folder"):
        run(target, server.add("/a", BODY), note=target.parent.parent / note)
        assert arrived(target)
        target.unlink()


def test_a_folder_in_the_place_of_the_parts_note_is_one_line(server, target):
    target.with_name(PART[1]).mkdir(parents=True)
    reason = refused(target, server.add("/a", BODY), left=[PART[1]])
    assert reason == f"{target.with_name(PART[1])}: cannot be written (Is a directory); fix that and run again"


def test_a_folder_in_the_place_of_the_file_is_one_line(target):
    target.mkdir(parents=True)
    assert "is no file" in refused(target, "http://127.0.0.1/", left=["file.zip"])


def test_an_interrupt_keeps_the_part_and_frees_the_lock(server, target, monkeypatch):
    url = server.add("/a", BODY, DROP, etag='"one"')

    def interrupt(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(target, url)
    assert names(target) == sorted(PART)
    assert json.loads(target.with_name(PART[1]).read_text()) == {
        "url": url,
        "validator": '"one"',
        "total": len(BODY),
        "sha256": None,
        "md5": None,
    }
    run(target, url)
    assert server.sent() == len(BODY)


def test_a_second_thread_waits_and_finds_it_there(server, target):
    url = server.add("/a", BODY, always=Mishap(delay=0.01))
    results: list = []
    threads = [threading.Thread(target=lambda: results.append(run(target, url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found.url for found, _ in results) == ["already there"] * 3 + [url]
    waiting = "file.zip: another process is fetching it; waiting"
    assert sum(said == [waiting] for _, said in results) == 3
    assert (len(server.requests), server.sent()) == (1, len(BODY))
    assert arrived(target)


def test_after_a_failure_those_who_wait_take_turns(server, target):
    """The lock file is removed while others wait for it; none of them may then write beside another."""
    url = server.add("/a", BODY, *[Mishap(corrupt=True, delay=0.003)] * 3, always=Mishap(delay=0.003))
    results: list = []

    def one():
        try:
            results.append(run(target, Source(url, sha256=SHA256)))
        except CptError:
            results.append(None)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results.count(None) == 3
    assert len(server.requests) == 4
    assert arrived(target)


def test_two_processes_fetch_once(server, target):
    url = server.add("/a", BODY, always=Mishap(delay=0.01))
    code = (
        "import sys, pathlib; from cpt.data.download.fetch import *; "
        "fetch([Source(sys.argv[1])], pathlib.Path(sys.argv[2]))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, url, str(target)]) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    assert len(server.requests) == 1
    assert arrived(target)


def test_the_proxy_of_the_environment_is_used(server, target, monkeypatch):
    server.add("/a", BODY)
    monkeypatch.setenv("http_proxy", server.root)
    run(target, "http://files.example/a")
    assert server.requests[0].target == "http://files.example/a"
    assert arrived(target)


def test_a_proxy_that_does_not_answer_is_named(target, monkeypatch):
    """Else it looks as if the mirror were to blame. Its password is not."""
    with Server() as gone:
        pass
    monkeypatch.setenv("http_proxy", gone.root.replace("//", f"//{LOGIN}@"))
    reason = refused(target, "http://files.example/a", attempts=1)
    assert f"no connection through the proxy {gone.root} (Connection refused)" in reason


def test_a_proxy_that_will_not_is_told_in_its_own_words(server, target, monkeypatch):
    monkeypatch.setenv("https_proxy", server.root)
    reason = refused(target, "https://files.example/a", attempts=1)
    assert f"no connection through the proxy {server.root} (Tunnel connection failed: 501" in reason


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (
            f"socks5://{LOGIN}@127.0.0.1:9",
            "the proxy socks5://127.0.0.1:9 of the environment cannot be used (Missing dep",
        ),
        (f"http://{LOGIN}@[bad", "the address of the proxy of the environment is malformed; fix or unset it"),
        (f"{LOGIN}@127.0.0.1:9", "the address of the proxy of the environment is malformed; fix or unset it"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(target, monkeypatch, proxy, words):
    """The mirror's address is not to blame."""
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    reason = refused(target, "http://files.example/a")
    assert f"http://files.example/a: {words}" in reason
    assert "Xyzzy" not in reason


def test_no_password_is_in_messages_and_records(server, target):
    note = target.with_name("origin.json")
    url = server.add("/a", BODY, DROP, always=Mishap(status=404), etag='"one"')
    secret = url.replace("//", f"//{LOGIN}@{LOGIN}@")
    reason = refused(target, secret, f"ftp://{LOGIN}@host/x", attempts=2, left=PART, note=note)
    assert f"{url}: HTTP 404" in reason
    assert "ftp://host/x: is no http" in reason
    part = target.with_name(PART[1]).read_text()
    server.add("/a", BODY, etag='"one"')
    found, said = run(target, secret, note=note)
    assert server.requests[-1].headers["Range"] == "bytes=100000-"
    assert (found.url, run(target, secret, note=note)[0].url) == (url, url)
    assert "Xyzzy" not in reason + part + note.read_text() + repr(found) + repr(said)
    scoped = server.add("/x//y:z@1", BODY)
    target.unlink()
    assert run(target, scoped)[0].url == scoped, "not every @ ends a password"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS])
def test_a_disk_without_locks_goes_without(server, target, monkeypatch, number):
    def refuse(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    run(target, server.add("/a", BODY, DROP, etag='"one"'))
    assert arrived(target)


def test_a_bar_is_drawn_on_stderr_only(server, target, capfd):
    _, said = run(target, server.add("/a", BODY), progress=True)
    out, err = capfd.readouterr()
    assert (said, out) == ([], "")
    assert "file.zip" in err


def test_lines_come_about_every_tenth_and_not_too_often(server, target, monkeypatch):
    url = server.add("/a", BODY)
    monkeypatch.setattr(connection, "CHUNK", 3000)
    monkeypatch.setattr(transfer, "_SECONDS_BETWEEN_LINES", 0)
    _, said = run(target, url)
    assert len(said) == 10
    assert said[1] == "file.zip: 0.0 MB of 0.3 MB (10 %)"
    target.unlink()
    monkeypatch.setattr(transfer, "_SECONDS_BETWEEN_LINES", 1e9)
    assert len(run(target, url)[1]) == 1


def test_a_folder_can_be_served(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b.txt").write_text("text")
    with Server(tmp_path / "in") as server:
        run(tmp_path / "out" / "a.txt", f"{server.root}/a%20b.txt")
        assert "HTTP 404" in refused(Path(tmp_path / "else" / "a"), f"{server.root}/../test")
    assert (tmp_path / "out" / "a.txt").read_text() == "text"


def test_importing_stays_cheap():
    heavy = ("requests", "rich", "filelock")
    code = f"import sys, cpt.data.download.fetch; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
