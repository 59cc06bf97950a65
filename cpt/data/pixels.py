"""The image cache: one part of a dataset decoded, resized and cropped once, as a memory map of uint8.

Every evaluation of every run reads it. Its pixels are those that ``ImageStore`` would decode, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cpt.data.images import ImageStore, check_decodable
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.files import atomic, note_sha256, read_json, write_json

SCHEMA = "cpt.pixels/1"
CHUNK = 1024


def make_pixels(
    manifest_path: Path, part: str, size: int, output: Path, workers: int, say: Callable[[str], None] = print
) -> int:
    """Write ``output`` (N, size, size, 3) and its record beside it (.json); return N.

    Args:
        manifest_path: manifest of a dataset whose images are files.
        part: ``train``, ``val`` or ``test``.
        size: height and width that the model takes, in pixels.
        output: .npy file.
        workers: threads that decode.

    Raises:
        CptError: the part has no images, or images cannot be decoded; the message counts them and names the first.
    """
    manifest = read_manifest(manifest_path)
    rows = manifest.rows(part)
    if len(rows) == 0:
        raise CptError(f"{manifest_path}: no images in part {part!r}")
    store = ImageStore(manifest_path, size)
    failures: list[str] = []
    digest = hashlib.sha256()

    def decode(place: tuple[int, NDArray[np.uint8]]) -> str | None:
        row, pixels = place
        try:
            pixels[:] = store.pixels([row])[0]
        except CptError as error:
            return str(error)
        return None

    with atomic(output) as temporary, ThreadPoolExecutor(workers) as pool:
        everything = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(rows), size, size, 3))
        with open(temporary, "rb") as file:
            digest.update(file.read(everything.offset))
        for start in range(0, len(rows), CHUNK):
            chunk = zip(rows[start : start + CHUNK].tolist(), everything[start : start + CHUNK], strict=True)
            failures += [reason for reason in pool.map(decode, chunk) if reason]
            digest.update(everything[start : start + CHUNK].data)  # while it is in memory: the file is not read again
            say(f"{min(start + CHUNK, len(rows))} of {len(rows)} images")
        check_decodable(failures, len(rows))
        everything.flush()
    note_sha256(output, digest.hexdigest())
    write_json(
        output.with_suffix(".json"),
        {
            "schema": SCHEMA,
            "dataset": manifest.metadata["dataset"],
            "part": part,
            "size": size,
            "first_row": int(rows[0]),
            "count": len(rows),
            "manifest_hash": manifest.metadata["content_hash"],
            "sha256": digest.hexdigest(),
        },
    )
    return len(rows)


def open_pixels(path: Path, manifest_hash: str, size: int) -> tuple[int, NDArray[np.uint8]]:
    """Return the first row of a cache and its memory map (N, size, size, 3); image i belongs to row first + i.

    Raises:
        CptError: the cache is damaged, or of another manifest or size.
    """
    record = read_json(path.with_suffix(".json"), SCHEMA)
    if (record["manifest_hash"], record["size"]) != (manifest_hash, size):
        raise CptError(f"{path}: made from another manifest or for another image size; delete it and run again")
    try:
        pixels = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise CptError(f"{path}: cannot be read ({error}); delete it and run `cpt data pixels` again") from None
    if pixels.shape != (record["count"], size, size, 3) or pixels.dtype != np.uint8:
        raise CptError(f"{path}: damaged; delete it and run `cpt data pixels` again")
    return record["first_row"], pixels
