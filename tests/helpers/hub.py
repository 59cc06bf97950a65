"""A stand-in on the loopback for the hub of models: as much of its interface as pushing and pulling a run needs."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "x" * 34  # no secret: the stand-in knows no other


@dataclass
class Repository:
    """Files by path for every commit, oldest first."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])

    def name(self, place: int = -1) -> str:
        """Return the hash of a commit."""
        return hashlib.sha1(repr((len(self.commits[:place]), sorted(self.commits[place].items()))).encode()).hexdigest()

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a commit's hash and files, by ``main`` or its hash."""
        names = [self.name(place) for place in range(-len(self.commits), 0)]
        if revision == "main":
            return names[-1], self.commits[-1]
        return next(((n, c) for n, c in zip(names, self.commits, strict=True) if n == revision), None)


class Hub:
    """``with Hub() as hub: ...``; ``hub.repositories`` and ``hub.requests`` tell what came.

    Args:
        lfs: files with these suffixes are sent by way of git LFS, as the hub does with large ones.
        denied: the token may read only.
    """

    def __init__(self, lfs: tuple[str, ...] = (), denied: bool = False) -> None:
        self.lfs, self.denied = lfs, denied
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._httpd.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    def change(self, place: str, changes: dict[str, bytes | None]) -> None:
        """Commit files of a repository as anyone may who can write there; None deletes one."""
        files = self.repositories[place].commits[-1] | changes
        self.repositories[place].commits.append({name: body for name, body in files.items() if body is not None})


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """No log."""

    def do_GET(self) -> None:
        path = self._path()
        if path.startswith("/api/models/"):
            self._about(path.removeprefix("/api/models/").partition("/revision/")[0])
        else:
            self._resolve(path)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        self.hub.objects[self._path().rpartition("/")[2]] = self._body()
        self._answer(200)

    def do_POST(self) -> None:
        path, body = self._path(), self._body()
        if path == "/api/validate-yaml":
            wrong = "license: none" in json.loads(body)["content"]
            errors = [{"message": '"license" must be one of apache-2.0, mit'}] * wrong
            self._answer(400 if wrong else 200, {"warnings": [], "errors": errors})
        elif not self._known():
            self._answer(401, {"error": "Invalid username or password."})
        elif self.hub.denied:
            self._answer(403, {"error": "You don't have the rights to do this."})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
            self.hub.repositories[name] = Repository(private)
            self._answer(200, {"url": f"{self.hub.endpoint}/{name}"})
        elif path.endswith("/info/lfs/objects/batch"):
            self._answer(
                200, {"transfer": "basic", "objects": [self._asked(one) for one in json.loads(body)["objects"]]}
            )
        else:
            name, _, verb = path.removeprefix("/api/models/").removesuffix("/main").rpartition("/")
            self._answer(200, {"preupload": self._preupload, "commit": self._commit}[verb](name, body))

    def _asked(self, held: dict[str, Any]) -> dict[str, Any]:
        there = {"upload": {"href": f"{self.hub.endpoint}/objects/{held['oid']}"}}
        return held | ({} if held["oid"] in self.hub.objects else {"actions": there})

    def _preupload(self, name: str, body: bytes) -> dict[str, Any]:
        return {
            "files": [
                {"path": file["path"], "shouldIgnore": False}
                | {"uploadMode": "lfs" if file["path"].endswith(self.hub.lfs or ("/",)) else "regular"}
                for file in json.loads(body)["files"]
            ]
        }

    def _commit(self, name: str, body: bytes) -> dict[str, Any]:
        changes: dict[str, bytes | None] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changes[value["path"]] = self.hub.objects[value["oid"]]
        self.hub.change(name, changes)
        oid = self.hub.repositories[name].name()
        return {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}", "commitOid": oid}

    def _about(self, name: str) -> None:
        held = self._visible(name)
        if held is not None:
            siblings = [{"rfilename": path} for path in held.commits[-1]]
            self._answer(200, {"id": name, "sha": held.name(), "private": held.private, "siblings": siblings})

    def _resolve(self, path: str) -> None:
        name, _, rest = path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        held = self._visible(name)
        if held is None:
            return
        if (found := held.files(revision)) is None:
            self._answer(404, {"error": "Revision Not Found"}, {"X-Error-Code": "RevisionNotFound"})
        elif file not in found[1]:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found[0]}
            self._answer(404, {"error": "Entry not found"}, headers)
        else:
            tag = f'"{hashlib.sha256(found[1][file]).hexdigest()}"'
            self._answer(200, found[1][file], {"ETag": tag, "X-Repo-Commit": found[0]})

    def _visible(self, name: str) -> Repository | None:
        """The repository, or an answer that there is none: the hub says so also of a private one of others."""
        held = self.hub.repositories.get(name)
        if held is None or (held.private and not self._known()):
            self._answer(401, {"error": "Repository Not Found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return held

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        return path

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
