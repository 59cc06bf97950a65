"""Making the image cache: one part of a dataset decoded, resized and cropped once, as an array of uint8.

Every evaluation of every run reads it. Its pixels are those that ``ImageStore`` would decode, bit for bit.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cpt.data.decoding import check_decodable, failures
from cpt.data.image_cache import CHUNK, SCHEMA
from cpt.data.images import PLAIN, ImageStore, Resizing
from cpt.data.manifest import read_manifest, rows_of
from cpt.files.stage_files import atomic, note_sha256, write_json


def make_pixels(
    manifest_path: Path,
    part: str,
    size: int,
    output: Path,
    workers: int,
    log: Callable[[str], None] = print,
    resizing: Resizing = PLAIN,
) -> int:
    """Write ``output`` (N, size, size, 3) and its record beside it (.json); return N.

    Args:
        manifest_path: manifest of a dataset whose images are files.
        part: ``train``, ``val`` or ``test``.
        size: height and width that the model takes, in pixels.
        output: .npy file.
        workers: threads that decode.
        resizing: of test images.

    Raises:
        CptError: the part has no images, or images cannot be decoded; the message counts them and names the first.
    """
    manifest = read_manifest(manifest_path)
    rows = rows_of(manifest, part, manifest_path)
    store, reasons = ImageStore(manifest_path, size, resizing=resizing), []
    digest, checksums = hashlib.sha256(), []

    def decode(place: tuple[int, NDArray[np.uint8]]) -> None:
        row, pixels = place
        pixels[:] = store.pixels([row])[0]

    images = np.zeros((CHUNK, size, size, 3), np.uint8)
    head = _head((len(rows), size, size, 3))
    with atomic(output) as temporary, open(temporary, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, len(head) + len(rows) * images[0].nbytes)  # a full disk says so now
        file.write(head)
        digest.update(head)
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK].tolist()
            reasons += failures(decode, list(zip(chunk, images, strict=False)), workers)
            done = images[: len(chunk)].data
            file.write(done)
            digest.update(done)
            checksums.append(zlib.crc32(done))
            log(f"{min(start + CHUNK, len(rows))} of {len(rows)} images")
        check_decodable(reasons, len(rows))
        note_sha256(temporary, digest.hexdigest())  # so that a large file is not read again
    known = manifest.metadata
    record = {"dataset": known["dataset"], "manifest_hash": known["content_hash"], "part": part, "size": size}
    record |= {"schema": SCHEMA, "first_row": int(rows[0]), "count": len(rows)}
    record |= {"sha256": digest.hexdigest(), "chunk": CHUNK, "crc32": checksums}
    write_json(output.with_suffix(".json"), record)
    return len(rows)


def _head(shape: tuple[int, ...]) -> bytes:
    """Return the beginning of an .npy file of uint8."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return head.getvalue()
