"""What a stage reads and writes, for its record (``cpt.files.provenance``)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Trace:
    """Absolute paths of the files read and written through ``cpt.files.stage_files``, and the hashes it came by."""

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    sha256: dict[str, str] = field(default_factory=dict)


_trace = Trace()


def current() -> Trace:
    """Return the trace of the innermost block."""
    return _trace


@contextlib.contextmanager
def traced() -> Iterator[Trace]:
    """Yield a trace of what the block reads and writes."""
    global _trace
    outer, _trace = _trace, Trace()
    try:
        yield _trace
    finally:
        _trace = outer


def note_read(path: Path) -> None:
    """Tell the trace of a file that is read by other means than ``cpt.files.stage_files``."""
    current().read.add(os.path.abspath(path))


def note_sha256(path: Path, digest: str) -> None:
    """Tell the trace the hash of a file, so that a large one is not read again."""
    current().sha256[os.path.abspath(path)] = digest
