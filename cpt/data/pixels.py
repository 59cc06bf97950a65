"""The image cache: one part of a dataset decoded, resized and cropped once, as an array of uint8.

Every evaluation of every run reads it. Its pixels are those that ``ImageStore`` would decode, bit for bit. It can be
too large to be read as a whole by every job (ImageNet's 50,000 images: 7.5 GB), so each chunk of images has a checksum
of its own, which is compared when the chunk is read first. Images are read, not mapped: some disks cannot map files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import weakref
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
from cpt.files.hashes import open_regular
from cpt.files.stage_files import atomic, note_sha256, read_json, unusable, write_json

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

    images = np.zeros((CHUNK, size, size, 3), np.uint8)
    head = _head((len(rows), size, size, 3))
    with atomic(output) as temporary, open(temporary, "wb") as file, ThreadPoolExecutor(workers) as pool:
        os.posix_fallocate(file.fileno(), 0, len(head) + len(rows) * images[0].nbytes)  # a full disk says so now
        file.write(head)
        digest.update(head)
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK].tolist()
            failures += [reason for reason in pool.map(decode, zip(chunk, images, strict=False)) if reason]
            done = images[: len(chunk)].data
            file.write(done)
            digest.update(done)
            checksums.append(zlib.crc32(done))
            say(f"{min(start + CHUNK, len(rows))} of {len(rows)} images")
        check_decodable(failures, len(rows))
        note_sha256(temporary, digest.hexdigest())  # so that a large file is not read again
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


def _head(shape: tuple[int, ...]) -> bytes:
    """Return the beginning of an .npy file of uint8."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return head.getvalue()


class Pixels:
    """An image cache; the image of row r of the manifest is ``r - first_row``.

    Args:
        path: the .npy file, for messages.
        record: what ``make_pixels`` wrote beside it.
        file: the .npy file, of which the header has been read.
    """

    def __init__(self, path: Path, record: dict[str, Any], file: io.BufferedReader) -> None:
        self.path, self._file, self._offset = path, file, file.tell()
        self._count, self._size = record["count"], record["size"]
        self._first, self._chunk, self._checksums = record["first_row"], record["chunk"], record["crc32"]
        self._checked: set[int] = set()
        weakref.finalize(self, file.close)

    def holds(self, rows: NDArray[np.int64]) -> bool:
        """Whether all of these rows of the manifest are in the cache."""
        return bool(self._first <= rows.min() and rows.max() < self._first + self._count)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images (B, size, size, 3) of rows of the manifest.

        Raises:
            CptError: they have changed since they were written, or cannot be read.
        """
        wanted = rows - self._first
        for chunk in set((wanted // self._chunk).tolist()) - self._checked:  # threads may check one twice
            start = chunk * self._chunk
            images = self._empty(min(self._chunk, self._count - start))
            self._read(start, images)
            if zlib.crc32(images.data) != self._checksums[chunk]:
                last = start + len(images) - 1
                raise unusable(self.path, f"images {start} to {last} have changed since they were written")
            self._checked.add(chunk)
        images = self._empty(len(wanted))
        for place, image in zip(wanted.tolist(), images, strict=True):
            self._read(place, image)
        return images

    def _empty(self, count: int) -> NDArray[np.uint8]:
        return np.empty((count, self._size, self._size, 3), np.uint8)

    def _read(self, start: int, images: NDArray[np.uint8]) -> None:
        """Fill one image or several from the file, from image ``start`` on; threads share the file's position."""
        place = self._offset + start * self._size**2 * 3
        left = images.data.cast("B")
        while left:
            try:
                count = os.preadv(self._file.fileno(), [left], place)
            except OSError as error:
                raise unusable(self.path, error) from None
            if count == 0:
                raise unusable(self.path, "cut off while it was read")
            left, place = left[count:], place + count


def open_pixels(path: Path, manifest_hash: str, size: int) -> Pixels:
    """Open a cache of images of this manifest and size.

    Raises:
        CptError: the cache is damaged, or of another manifest or size.
    """
    record = read_json(path.with_suffix(".json"), SCHEMA)
    if (record["manifest_hash"], record["size"]) != (manifest_hash, size):
        raise unusable(path, "made from another manifest or for another image size")
    shape = (record["count"], size, size, 3)
    with contextlib.ExitStack() as unless_whole:
        try:
            file = unless_whole.enter_context(open_regular(path))
            np.lib.format.read_magic(file)
            found = np.lib.format.read_array_header_1_0(file)
        except (OSError, ValueError) as error:
            raise unusable(path, error) from None
        if found != (shape, False, np.uint8):
            raise unusable(path, "damaged")
        if os.fstat(file.fileno()).st_size != file.tell() + math.prod(shape):
            raise unusable(path, "damaged (of another length)")
        unless_whole.pop_all()
    return Pixels(path, record, file)
