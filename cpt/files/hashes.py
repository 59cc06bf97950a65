"""The one text of a value and the way back, and the bytes of files and their hashes."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_text(value: object) -> str:
    """Return the text of a JSON file: indented, sorted keys, no NaN."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def parse_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """Return the value of a JSON text; ``pairs`` makes a mapping of its keys and values.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested too deeply to be read.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sha256_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading; a pipe or a device in its place may never end.

    Raises:
        OSError: the file is missing, cannot be read, or is no regular file.
    """
    without_waiting = os.O_NONBLOCK  # a pipe would wait for a writer
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | without_waiting))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_bytes(path: Path) -> bytes:
    """Return a regular file's bytes.

    Raises:
        OSError: the file is missing, cannot be read, or is no regular file; it names the file.
    """
    with open_regular(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


def digest_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a regular file's bytes.

    Raises:
        OSError: the file is missing, cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
