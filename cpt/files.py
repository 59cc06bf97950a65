"""Reading and writing the files between stages: atomic, checked, with their schema's name inside.

The schemas are documented in docs/files.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.errors import CptError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch


@dataclass
class Trace:
    """Absolute paths of the files that were read and written through this module, and the hashes that it came by."""

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    sha256: dict[str, str] = field(default_factory=dict)


_trace = Trace()


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
    """Tell the trace of a file that is read by other means than this module's."""
    _trace.read.add(os.path.abspath(path))


def note_sha256(path: Path, digest: str) -> None:
    """Tell the trace the hash of a file, so that a large one is not read again."""
    _trace.sha256[os.path.abspath(path)] = digest


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes.

    Raises:
        CptError: the file is missing.
    """
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise CptError(f"{path}: not found; run the stage that writes it (docs/files.md)") from None
    note_sha256(path, digest)
    return digest


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` if the block succeeds, remove it if not.

    The temporary name keeps the suffix, because writers choose formats by it. The bytes are on the disk before the
    name is, so that a power loss leaves the old file or the new one. Temporary files of writers that were killed are
    removed; those of living ones are locked.

    Raises:
        CptError: the disk is full, or the file cannot be written.
    """
    temporary, handle = None, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        temporary = Path(name)
        _lock(handle)
        yield temporary
        os.fsync(handle)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
        _trace.written.add(os.path.abspath(path))
        _trace.sha256.pop(os.path.abspath(path), None)
    except Exception as error:
        if (problem := _unwritable(path, error)) is None:
            raise
        raise CptError(problem) from None
    finally:
        if handle is not None:
            os.close(handle)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _lock(handle: int) -> bool:
    """Whether this process holds the lock of an open file; file systems without locks give none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_orphans(path: Path) -> None:
    """Remove the temporary files of writers of ``path`` that are dead: nobody holds their lock."""
    pattern = f".{glob.escape(path.stem)}-{'[a-z0-9_]' * 8}{glob.escape(path.suffix)}"
    for orphan in path.parent.glob(pattern):
        with contextlib.suppress(OSError):
            handle = os.open(orphan, os.O_RDWR)
            try:
                if _lock(handle):
                    orphan.unlink(missing_ok=True)
            finally:
                os.close(handle)


def _unwritable(path: Path, error: Exception) -> str | None:
    """One line about an error of the file system; None for any other error.

    Libraries give it as OSError, or in words of their own.
    """
    number, reason = getattr(error, "errno", None), str(error)
    if number == errno.EFBIG:
        return f"{path}: cannot be written, it is larger than this process may write; raise `ulimit -f`"
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in reason or "quota exceeded" in reason:
        free = shutil.disk_usage(next(parent for parent in path.absolute().parents if parent.exists())).free
        return f"{path}: cannot be written, the disk is full ({free / 1e6:,.1f} MB free); free some and run again"
    if isinstance(error, OSError) and error.strerror:
        named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        if any(name in path.parents or name.parent == path.parent for name in named):
            return f"{path}: cannot be written ({error.strerror}); mend that and run again"
    return None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: object) -> str:
    """Return the text of a JSON file: indented, sorted keys, no NaN."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with sorted keys atomically."""
    write_text(path, json_text(value))


def read_json(path: Path, schema: str) -> dict[str, Any]:
    """Read a JSON object whose ``schema`` field must be ``schema``.

    Raises:
        CptError: the file is missing, not JSON, or of another schema.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CptError(f"{path}: not found; run the stage that writes it (docs/files.md)") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CptError(f"{path}: damaged ({error}); delete it and run again") from None
    _check_schema(path, value if isinstance(value, dict) else {}, schema)
    note_read(path)
    return value


def write_parquet(path: Path, table: pa.Table, schema: str, **metadata: object) -> None:
    """Write a Parquet file atomically with ``{"schema": schema, **metadata}`` inside.

    The bytes depend on the table, the metadata and the pyarrow version only.
    """
    import pyarrow.parquet as pq

    described = table.replace_schema_metadata({"cpt": canonical_json({"schema": schema, **metadata})})
    with atomic(path) as temporary:
        pq.write_table(described, temporary, compression="zstd")


def read_parquet(path: Path, schema: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read a Parquet file of the given schema; return its table and metadata.

    Raises:
        CptError: the file is missing, damaged, or of another schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:  # read_table would import pyarrow.dataset, half a second of every job
            table = file.read()
    except FileNotFoundError:
        raise CptError(f"{path}: not found; run the stage that writes it (docs/files.md)") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CptError(f"{path}: damaged ({reason}); delete it and run again") from None
    metadata = json.loads((table.schema.metadata or {}).get(b"cpt", b"{}"))
    _check_schema(path, metadata, schema)
    note_read(path)
    return table, metadata


def column(table: pa.Table, name: str) -> np.ndarray:
    """Return a column without nulls as an array: numbers by their type, text as objects.

    ``to_numpy`` of pyarrow would import pandas, half a second of every job.
    """
    import numpy as np
    import pyarrow as pa

    values = table[name].combine_chunks()
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return np.array(np.from_dlpack(values))
    return np.array(values.to_pylist(), dtype=object)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], schema: str, **metadata: object) -> None:
    """Write tensors as safetensors atomically with ``{"schema": schema, **metadata}`` inside."""
    from safetensors.torch import save_file

    described = {"cpt": canonical_json({"schema": schema, **metadata})}
    with atomic(path) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, described)


def read_tensors(path: Path, schema: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read safetensors of the given schema; return tensors and metadata.

    Raises:
        CptError: the file is missing, damaged, or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("cpt", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no iterator
    except FileNotFoundError:
        raise CptError(f"{path}: not found; run the stage that writes it (docs/files.md)") from None
    except (SafetensorError, OSError) as error:
        raise CptError(f"{path}: damaged ({error}); delete it and run again") from None
    _check_schema(path, metadata, schema)
    note_read(path)
    return tensors, metadata


def _check_schema(path: Path, metadata: Mapping[str, Any], schema: str) -> None:
    found = metadata.get("schema")
    if found != schema:
        raise CptError(f"{path}: expected a file of schema {schema}, found {found or 'none'}; delete it and run again")
