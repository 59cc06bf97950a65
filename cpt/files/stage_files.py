"""Reading and writing the files between stages: atomic, checked, with their schema's name inside.

The schemas are documented in docs/files.md.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.errors import CptError, close
from cpt.files import integrity, trace
from cpt.files.atomic import atomic as atomic
from cpt.files.hashes import canonical_json as canonical_json
from cpt.files.hashes import digest_of_file, open_regular, read_bytes
from cpt.files.hashes import json_text as json_text
from cpt.files.hashes import parse_json as parse_json
from cpt.files.hashes import sha256_text as sha256_text
from cpt.files.trace import note_read as note_read
from cpt.files.trace import note_sha256 as note_sha256

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
           "U8": "uint8", "BOOL": "bool"}  # fmt: skip
"""Types of tensors: safetensors' names and torch's."""


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes, and tell the trace.

    Raises:
        CptError: the file is missing or cannot be read.
    """
    try:
        digest = digest_of_file(path)
    except OSError as error:
        raise unusable(path, error) from None
    note_sha256(path, digest)
    return digest


WRITTEN = (".json", ".npy", ".parquet", ".safetensors")
"""Suffixes of the files that stages read; another one is a user's own, which is not to be deleted."""


_FOLDERS = {
    "backbone.json": "give that of an experiment, results/<experiment>/backbone.json, or make one with `cpt backbone`",
    "grid.json": "give the folder of an experiment, results/<experiment>",
    "run.json": "give the folder of a finished run, results/<experiment>/runs/…/s<seed>",
}
"""What to give where there is no file of this name."""


def unusable(path: Path, problem: object, suffix: str | None = None) -> CptError:
    """Return the error for a file that cannot serve: the problem, in words or as an error, and what makes it again.

    ``suffix`` is that of the files that are read there: another one is not damaged, but was given by mistake.
    """
    fix = integrity.fix(path)
    otherwise = "delete it and run again"
    if isinstance(problem, FileNotFoundError):
        problem, otherwise = "not found", _instead(path)
    elif isinstance(problem, OSError) and problem.strerror:
        problem = f"cannot be read ({problem.strerror})"
    elif isinstance(problem, Exception) and path.suffix not in ((suffix,) if suffix else WRITTEN):
        what = f"a {suffix} file" if path.suffix in WRITTEN else "a file of a stage"
        problem, fix, otherwise = f"is not {what}", None, "give the one that the stage wrote (docs/files.md)"
    elif isinstance(problem, Exception):
        problem = f"damaged ({' '.join(str(problem).split())})"
    return CptError(f"{path}: {problem}; {f'fix: {fix}' if fix else otherwise}")


def _instead(path: Path) -> str:
    """What to do about a file that is not there, and that no experiment makes."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    first, *rest = path.absolute().relative_to(folder).parts
    if rest:  # a folder is not there: one may have meant another
        with contextlib.suppress(OSError):
            found = close(first, [name for name in os.listdir(folder) if folder.joinpath(name, *rest).is_file()])
            if found:
                return f"did you mean {Path(*path.parts[: -len(rest) - 1], found, *rest)}?"
    return _FOLDERS.get(path.name, "run the stage that writes it (docs/files.md)")


def require_unchanged(path: Path, *, sha256: str | None = None) -> None:
    """Compare a file with ``sha256``, or with the record beside it if there is one.

    What this process itself has written since is taken as it is: its record is written when the stage ends.

    Raises:
        CptError: the file is missing or has changed, or it or its record cannot be read.
    """
    if os.path.abspath(path) in trace.current().written:
        return
    try:
        recorded = integrity.written(path)
    except OSError as error:
        record = Path(error.filename)
        if record == path.parent:
            raise CptError(f"{record}: cannot be read ({error.strerror}); make it readable") from None
        raise unusable(record, error) from None
    expected = sha256 or (recorded and recorded[1])
    if expected and (found := sha256_file(path)) != expected:
        raise unusable(path, f"has changed since it was written ({expected[:12]} then, {found[:12]} now)")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy atomically."""
    import numpy as np

    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)  # np.save tells nothing of the reason when it cannot write


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with sorted keys atomically."""
    write_text(path, json_text(value))


def read_json(path: Path, schema: str) -> dict[str, Any]:
    """Read a JSON object whose ``schema`` field must be ``schema``.

    Raises:
        CptError: the file is missing, not JSON, changed, or of another schema.
    """
    require_unchanged(path)
    try:
        value = parse_json(read_bytes(path).decode())
    except (OSError, ValueError) as error:
        raise unusable(path, error, ".json") from None
    _check_schema(path, value, schema)
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
        CptError: the file is missing, damaged, changed, or of another schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_unchanged(path)
    try:
        # read_table would import pyarrow.dataset, half a second of every job
        with pq.ParquetFile(pa.BufferReader(read_bytes(path))) as file:
            table = file.read()
        metadata = parse_json((table.schema.metadata or {}).get(b"cpt", b"{}"))
    except (pa.ArrowException, ValueError, OSError) as error:
        raise unusable(path, error, ".parquet") from None
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
    from safetensors.torch import save

    described = {"cpt": canonical_json({"schema": schema, **metadata})}
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, described)
    with atomic(path) as temporary:
        temporary.write_bytes(content)  # save_file would put a file of its own in the place of the locked one


def read_tensors(
    path: Path, schema: str, *, sha256: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read safetensors of the given schema, and hash where another file tells it; return tensors and metadata.

    Raises:
        CptError: the file is missing, damaged, changed, or of another schema.
    """
    require_unchanged(path, sha256=sha256)
    with _reading(path), open_regular(path) as file:
        tensors, metadata = _header(path, file, schema)
        return {name: _tensor(file, **tensors[name]) for name in sorted(tensors)}, metadata


def read_metadata(path: Path, schema: str) -> dict[str, Any]:
    """Read the metadata of safetensors of the given schema, without torch.

    Raises:
        CptError: the file is missing, damaged, changed, or of another schema.
    """
    require_unchanged(path)
    with _reading(path), open_regular(path) as file:
        return _header(path, file, schema)[1]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading safetensors into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise unusable(path, error, ".safetensors") from None
    except (AttributeError, TypeError):
        raise unusable(path, ValueError("no header of safetensors"), ".safetensors") from None


def _header(path: Path, file: io.BufferedReader, schema: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return what ``_tensor`` needs to know of every tensor, and the metadata of the given schema.

    The library would map the file, which some disks cannot, and takes every error of opening it for a missing file. Its
    other way copies everything twice before a tensor has memory of its own: half a second of a job with ViT-B/16.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    header = parse_json(file.read(min(length, size)))
    metadata = parse_json(header.pop("__metadata__", {}).get("cpt", "{}"))
    _check_schema(path, metadata, schema)
    note_read(path)
    start = 8 + length
    tensors = {name: {"dtype": held["dtype"], "shape": held["shape"], "begin": start + held["data_offsets"][0],
                      "end": start + held["data_offsets"][1]} for name, held in header.items()}  # fmt: skip
    if size != max((held["end"] for held in tensors.values()), default=start):
        raise ValueError("of another length")
    return tensors, metadata


def _tensor(file: io.BufferedReader, dtype: str, shape: list[int], begin: int, end: int) -> torch.Tensor:
    """Read a tensor into memory of its own, so that no sum depends on its place in the file."""
    import torch

    kind = getattr(torch, _DTYPES[dtype])
    if end - begin != math.prod(shape) * kind.itemsize:
        raise ValueError("a tensor of another length")
    tensor = torch.empty(shape, dtype=kind)
    file.seek(begin)
    if file.readinto(tensor.view(-1).view(torch.uint8).numpy().data) != end - begin:
        raise ValueError("cut off")
    return tensor


def _check_schema(path: Path, metadata: object, schema: str) -> None:
    found = metadata.get("schema") if isinstance(metadata, dict) else None
    if found == schema:
        return
    problem = f"expected a file of schema {schema}, found {found or 'none'}"
    if isinstance(found, str) and found.partition("/")[0] != schema.partition("/")[0]:
        raise CptError(
            f"{path}: {problem}; give the file that was meant (docs/files.md)"
        )  # this one is as it should be
    raise unusable(path, problem)
