"""The bytes of a file that is being fetched: where it comes from, what there is of it, and whether it is right."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt.files.hashes import parse_json


@dataclass(frozen=True)
class Source:
    """One place that a file can be had from, and what is known of the file there.

    Args:
        url: http or https.
        bytes: size of the file.
        sha256: hexadecimal checksum.
        md5: hexadecimal checksum, where the publisher gives no better one.
    """

    url: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def shown(self) -> str:
        """The address as messages, logs and records have it."""
        return shown(self.url)


def shown(url: str) -> str:
    """Return an address on one line, without the user name and password that it may hold."""
    line = "".join(letter if letter.isprintable() else "�" for letter in url)
    return re.sub(r"^([A-Za-z0-9+.-]*://)?[^/?#]*@", r"\1", line)


_NOTED = {"url": str, "validator": str, "total": int, "bytes": int, "sha256": str, "md5": str, "redirected_to": str}


def read_note(path: Path) -> dict[str, Any]:
    """Return what a JSON file remembers of a fetched file; empty where it is absent, unreadable or not of that form.

    What it remembers saves work and no more, so that damage to it is no reason to stop.
    """
    try:
        note = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and "url" in note and all(map(_is_noted, note, note.values())) else {}


def _is_noted(key: str, value: object) -> bool:
    if value is None:
        return key != "url"
    return isinstance(value, _NOTED.get(key, object)) and (not isinstance(value, str) or value.isprintable())


class Part:
    """The bytes had so far, and beside them where they came from: url, validator, total, sha256 and md5."""

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(f"{destination.name}.part")
        self.note = destination.with_name(f"{destination.name}.part.json")

    def record(self) -> dict[str, Any]:
        """Return the note, empty when there is none or it is damaged."""
        record = read_note(self.note)
        return record if (record.get("validator") or "").isascii() else {}  # it goes into a header

    def continues(self, source: Source) -> int:
        """Return how many bytes of this source's file there are; 0 if the part may be of another file."""
        record = self.record()
        size = self.path.stat().st_size if record and self.path.exists() else 0
        for kind in ("sha256", "md5"):
            known, declared = record.get(kind), getattr(source, kind)
            if known and declared:
                return size if known == declared.lower() else 0
        return size if record.get("url") == source.shown and record.get("validator") else 0

    def begin(self, source: Source, total: int | None, validator: str | None) -> None:
        """Describe the part that is about to be written."""
        self.path.unlink(missing_ok=True)
        record: dict[str, Any] = {"url": source.shown, "validator": validator, "total": total}
        for kind in ("sha256", "md5"):
            record[kind] = (getattr(source, kind) or "").lower() or None
        self.note.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def discard(self) -> None:
        """Remove both files."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


class Digests:
    """SHA-256, and MD5 where a source declares it, of the bytes seen."""

    def __init__(self, *sources: Source) -> None:
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False) if any(source.md5 for source in sources) else None

    def update(self, chunk: bytes) -> None:
        self.sha256.update(chunk)
        if self.md5:
            self.md5.update(chunk)

    def update_from(self, path: Path) -> None:
        with open(path, "rb") as file:
            while chunk := file.read(2**20):
                self.update(chunk)

    def mismatch(self, source: Source) -> str | None:
        """Return what is wrong with the checksum, None if nothing."""
        for kind in ("sha256", "md5"):
            declared, digest = getattr(source, kind), getattr(self, kind)
            if declared and digest.hexdigest() != declared.lower():
                return f"has {kind} {digest.hexdigest()[:12]}… instead of {declared[:12]}…"
        return None


def size_mismatch(source: Source, size: int) -> str | None:
    return f"has {size} bytes instead of {source.bytes}" if source.bytes not in (None, size) else None
