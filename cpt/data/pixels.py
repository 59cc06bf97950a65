"""The image cache: one part of a dataset decoded, resized and cropped once, as a memory map of uint8.

Every evaluation of every run reads it. Its pixels are those that ``ImageStore`` would decode, bit for bit. It can be
too large to be read as a whole by every job (ImageNet's 50,000 images: 7.5 GB), so each chunk of images has a checksum
of its own, which is compared when the chunk is read first.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpt.data.images import ImageStore, check_decodable
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.files import atomic, note_sha256, read_json, unusable, write_json

SCHEMA = "cpt.pixels/2"
CHUNK = 256
"""Images that are decoded, and checked, together."""


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
    digest, checksums = hashlib.sha256(), []

    def decode(place: tuple[int, NDArray[np.uint8]]) -> str | None:
        row, pixels = place
        try:
            pixels[:] = store.pixels([row])[0]
        except CptError as error:
            return str(error)
        return None

    with atomic(output) as temporary, ThreadPoolExecutor(workers) as pool:
        everything = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(rows), size, size, 3))
        with open(temporary, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)  # a full disk would kill who writes the map
            digest.update(file.read(everything.offset))
        for start in range(0, len(rows), CHUNK):
            chunk = zip(rows[start : start + CHUNK].tolist(), everything[start : start + CHUNK], strict=True)
            failures += [reason for reason in pool.map(decode, chunk) if reason]
            done = everything[start : start + CHUNK].data  # in memory: the file is not read again
            digest.update(done)
            checksums.append(zlib.crc32(done))
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
            "chunk": CHUNK,
            "crc32": checksums,
        },
    )
    return len(rows)


class Pixels:
    """An image cache; the image of row r of the manifest is ``r - first_row``.

    Args:
        path: the .npy file, for messages.
        record: what ``make_pixels`` wrote beside it.
        array: (N, size, size, 3) memory map.
    """

    def __init__(self, path: Path, record: dict[str, Any], array: NDArray[np.uint8]) -> None:
        self.path, self.array = path, array
        self._first, self._chunk, self._checksums = record["first_row"], record["chunk"], record["crc32"]
        self._checked: set[int] = set()

    def holds(self, rows: NDArray[np.int64]) -> bool:
        """Whether all of these rows of the manifest are in the cache."""
        return bool(self._first <= rows.min() and rows.max() < self._first + len(self.array))

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images (B, size, size, 3) of rows of the manifest.

        Raises:
            CptError: they have changed since they were written.
        """
        wanted = rows - self._first
        for chunk in set((wanted // self._chunk).tolist()) - self._checked:  # threads may check one twice
            start = chunk * self._chunk
            images = self.array[start : start + self._chunk]
            if zlib.crc32(images.data) != self._checksums[chunk]:
                last = start + len(images) - 1
                raise unusable(self.path, f"images {start} to {last} have changed since they were written")
            self._checked.add(chunk)
        return np.asarray(self.array[wanted])


def open_pixels(path: Path, manifest_hash: str, size: int) -> Pixels:
    """Open a cache of images of this manifest and size.

    Raises:
        CptError: the cache is damaged, or of another manifest or size.
    """
    record = read_json(path.with_suffix(".json"), SCHEMA)
    if (record["manifest_hash"], record["size"]) != (manifest_hash, size):
        raise unusable(path, "made from another manifest or for another image size")
    try:
        pixels = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise unusable(path, error) from None
    if pixels.shape != (record["count"], size, size, 3) or pixels.dtype != np.uint8:
        raise unusable(path, "damaged")
    return Pixels(path, record, pixels)
