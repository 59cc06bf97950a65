"""Reading the image cache: one part of a dataset as an array of uint8 (``cpt.data.make_image_cache`` makes it).

It can be too large to be read as a whole by every job (ImageNet's 50,000 images: 7.5 GB), so each chunk of images has a
checksum of its own, which is compared when the chunk is read first. Images are read, not mapped: some disks cannot map
files.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpt.files.hashes import open_regular
from cpt.files.stage_files import read_json, unusable

SCHEMA = "cpt.pixels/2"
CHUNK = 256
"""Images that are decoded, and checked, together."""


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
