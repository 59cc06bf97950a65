"""Making manifests. A layout says how the images of a dataset are found or made."""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpt import files
from cpt.data.blocks import map_blocks
from cpt.data.folders import folders
from cpt.data.listing import Listing, again
from cpt.data.manifest import PARTS, SCHEMA
from cpt.data.published import aircraft, imagenet, numbered_folders, split_json, wnid_folders
from cpt.errors import CptError, nearest
from cpt.validation import drawable

if TYPE_CHECKING:
    from cpt.data.catalog import Entry

PACKED = "images.npy"
_THREADS = 8
"""Threads that ask for sizes and bytes: as fast as one on a local disk; answers over a network are awaited together."""


def embedded(entry: Entry) -> Listing:
    """Render a dataset of the embedded world: train, val and test parts; a shift has a test part only.

    Validation images are further images of the training style, behind those of the pool.
    """
    from cpt.data import world

    key = entry.key or entry.name
    if key not in world.KEYS:
        raise CptError(f"{entry.name}.key: the embedded world has no {key!r}; {nearest(key, world.KEYS)}")
    if key in world.SHIFTS and entry.shift_of is None:
        raise CptError(f"{entry.name}.shift_of: missing; {key} has test images only, name its source")
    images, pixels = [], []
    for part in ("test",) if entry.shift_of else ("train", "test"):
        pool = getattr(entry.per_class, part)
        count = pool + entry.per_class.val if part == "train" else pool
        rendered, labels = world.render(key, part, count)
        parts = np.where(np.arange(len(labels)) % count < pool, part, "val").tolist()
        images += [(name, label, PACKED) for name, label in zip(parts, labels.tolist(), strict=True)]
        pixels.append(rendered)
    return Listing(list(world.class_names(key)), images, pixels=np.concatenate(pixels))


LAYOUTS: dict[str, Callable[[Entry], Listing]] = {
    "embedded": embedded,
    "folders": folders,
    "split_json": split_json,
    "aircraft": aircraft,
    "imagenet": imagenet,
    "wnid_folders": wnid_folders,
    "numbered_folders": numbered_folders,
}
BY_FOLDER = ("imagenet", "wnid_folders", "numbered_folders")
"""Layouts whose class names are given by folder."""


def find_images(entry: Entry) -> Listing:
    """List the images of a dataset and check that they are all there, and are what the catalog expects.

    Raises:
        CptError: the layout does not find what it needs, an image is missing, empty or named twice, a class name has
            a character that no figure can hold, or counts, class names or the border between base and new classes are
            not the expected ones.
    """
    listing = LAYOUTS[entry.layout](entry)
    for name in listing.class_names:
        try:
            drawable(name)
        except ValueError as error:
            raise CptError(f"{entry.name}: class {name!r}: {error}") from None
    paths = [path for _, _, path in listing.images]
    if listing.image_root is not None:
        if len(set(paths)) != len(paths):
            twice = next(path for path, count in Counter(paths).items() if count > 1)
            raise CptError(f"{entry.name}: image {twice!r} is listed twice; mend the list that names it")
        root = listing.image_root
        sizes = list(map_blocks(lambda path: _size(root / path), paths, _THREADS, 1024))
        if bad := [(path, size) for path, size in zip(paths, sizes, strict=True) if not size]:
            what = "empty" if bad[0][1] == 0 else "missing"
            count = f"{len(bad)} images are missing or empty, the first is " if len(bad) > 1 else ""
            first = root / bad[0][0]
            raise CptError(f"{entry.name}: {count}{first} ({what}); get the dataset again: {again(entry, first)}")
    if entry.expected is not None:
        check(entry, listing)
    return listing


def check(entry: Entry, listing: Listing) -> None:
    """Compare a listing with what the catalog expects of a complete copy (``Expected``).

    Raises:
        CptError: naming what differs.
    """
    expected = entry.expected
    assert expected is not None
    names = listing.class_names
    named = None if entry.split is None or listing.derived else entry.folder / entry.split
    mend = again(entry, named)  # a split file decides on names and parts
    found = (len(names), files.sha256_text("\n".join(names)))
    if found != (expected.classes, expected.names_sha256):
        raise CptError(
            f"{entry.name}: its {found[0]} class names are not the published {expected.classes}; get it again: {mend}"
        )
    middle = (len(names) + 1) // 2
    boundary = (names[0], names[middle - 1], names[middle], names[-1])
    if expected.boundary not in (None, boundary):
        raise CptError(
            f"{entry.name}: base and new classes meet at {boundary[1:3]}, not at {expected.boundary[1:3]}; "
            f"get it again: {mend}"
        )
    count = Counter(("images", part) for part, _, _ in listing.images)
    count += Counter(("base" if label < middle else "new", part) for part, label, _ in listing.images)
    for half in ("images", "base", "new"):
        for part, wanted in getattr(expected, half).items():
            if count[half, part] != wanted:
                kind = "" if half == "images" else f" of {half} classes"
                raise CptError(
                    f"{entry.name}: {count[half, part]} {part} images{kind} instead of {wanted}; "
                    f"this is no complete copy of the published release, get it again: {mend}"
                )


def make_manifest(entry: Entry, output_dir: Path) -> Path:
    """Write ``manifest.parquet``, and ``images.npy`` for a packed dataset; return the manifest's path.

    Rows are sorted by part and keep the layout's own order inside it, which the few-shot draw follows.
    ``content_hash`` covers the rows and the pixels or the files' bytes (their sizes, where the catalog says so), not
    where they lie.

    Raises:
        CptError: see ``find_images``.
    """
    import pyarrow as pa

    listing = find_images(entry)
    class_names = [name.replace("_", " ") for name in listing.class_names]
    order = sorted(range(len(listing.images)), key=lambda i: PARTS.index(listing.images[i][0]))
    images = [listing.images[i] for i in order]
    packed = listing.pixels is not None
    columns: dict[str, list[Any]] = {
        "path": [path for _, _, path in images],
        "index": order if packed else [-1] * len(images),
        "label": [label for _, label, _ in images],
        "class_name": [class_names[label] for _, label, _ in images],
        "part": [part for part, _, _ in images],
    }
    if listing.pixels is not None:
        files.write_array(output_dir / PACKED, listing.pixels)
    destination = output_dir / "manifest.parquet"
    files.write_parquet(
        destination,
        pa.table(columns),
        SCHEMA,
        dataset=entry.name,
        layout=entry.layout,
        image_root="." if packed else str(listing.image_root),
        derived=listing.derived,
        content_hash=_content_hash(columns, listing, entry.fingerprint),
    )
    return destination


def _content_hash(columns: dict[str, list[Any]], listing: Listing, fingerprint: str) -> str:
    digest = hashlib.sha256(files.canonical_json(columns).encode())
    if listing.pixels is not None:
        digest.update(str(listing.pixels.shape).encode())
        digest.update(np.ascontiguousarray(listing.pixels).data)
    else:
        root = listing.image_root
        assert root is not None
        read = files.sha256_file if fingerprint == "bytes" else _size
        for value in map_blocks(lambda path: read(root / path), columns["path"], _THREADS, 64):
            digest.update(str(value).encode())
    return digest.hexdigest()


def _size(path: Path) -> int | None:
    """Bytes of a file, None when it is not there or no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
