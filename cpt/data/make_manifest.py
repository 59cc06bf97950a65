"""Making manifests. A layout says how the images of a dataset are found or made."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import shlex
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpt.data.extract import extract
from cpt.data.layouts.folders import folders
from cpt.data.layouts.huggingface import huggingface
from cpt.data.layouts.listing import Listing, again
from cpt.data.layouts.lists import inaturalist, lists
from cpt.data.layouts.published import aircraft, imagenet, numbered_folders, split_json, wnid_folders
from cpt.data.layouts.table import table
from cpt.data.manifest import PARTS, SCHEMA
from cpt.data.notices import copies, notices, spelled_in_two_ways
from cpt.data.threads import map_blocks
from cpt.errors import CptError, nearest
from cpt.files import stage_files as files
from cpt.validation import drawable, is_unicode

if TYPE_CHECKING:
    from cpt.data.entry import Entry

PACKED = "images.npy"
_THREADS = 8
"""Threads that ask for sizes and bytes: as fast as one on a local disk; answers over a network are awaited together."""


class MissingImagesError(CptError):
    """Images of a list or folder are missing or empty.

    Attributes:
        lines: path and fault of each.
    """

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines


def embedded(entry: Entry) -> Listing:
    """Render a dataset of a generated world: train, val and test parts; a shift has a test part only.

    Validation images are further images of the training style, behind those of the pool.
    """
    from cpt.data import world

    key = entry.key or entry.name
    if key not in world.KEYS:
        raise CptError(f"{entry.name}.key: no generated world has {key!r}; {nearest(key, world.KEYS)}")
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
    "csv": table,
    "huggingface": huggingface,
    "split_json": split_json,
    "aircraft": aircraft,
    "imagenet": imagenet,
    "wnid_folders": wnid_folders,
    "numbered_folders": numbered_folders,
    "lists": lists,
    "imagenet_lists": lists,
    "inaturalist": inaturalist,
}
BY_FOLDER = ("imagenet", "wnid_folders", "numbered_folders", "imagenet_lists")
"""Layouts whose class names are given by folder."""


def find_images(entry: Entry) -> Listing:
    """List the images of a dataset and check that they are all there, and are what the catalog expects.

    Raises:
        CptError: the layout does not find what it needs, an image is missing, empty or named twice, a name is not
            UTF-8, a class has no name, two, or one that no figure can hold, there is no test image, or counts, class
            names or the border between base and new classes are not the expected ones.
    """
    listing = _checked(entry, LAYOUTS[entry.layout](entry))
    if entry.expected is not None:
        check(entry, listing)
    if all(part != "test" for part, _, _ in listing.images):
        raise CptError(f"{entry.name}: has no test image, and every run is tested; put some into its test part")
    return listing


def _checked(entry: Entry, listing: Listing) -> Listing:
    _check_names(entry, listing)
    if listing.image_root is not None:
        _check_files(entry, listing, listing.image_root)
    return listing


def _check_names(entry: Entry, listing: Listing) -> None:
    for name in (*listing.class_names, *(path for _, _, path in listing.images)):
        if not is_unicode(name):
            raise CptError(
                f"{entry.name}: the name {name!r} is not UTF-8; give it another, or rename all files with "
                f"`convmv -f latin1 -t utf8 -r --notest {shlex.quote(str(listing.image_root))}`"
            )
    for name in listing.class_names:
        if not name.replace("_", " ").strip():
            raise CptError(f"{entry.name}: a class is called {name!r}, which is no word; give it a name")
        try:
            drawable(name)
        except ValueError as error:
            raise CptError(f"{entry.name}: class {name!r}: {error}") from None
    for one, other in spelled_in_two_ways(listing):
        raise CptError(
            f"{entry.name}: class {one!r} and class {other!r} are never in the same part and read the same; if they "
            "are one class, spell it alike in every part, else give one another name"
        )


def _check_files(entry: Entry, listing: Listing, root: Path) -> None:
    """Check that every image is there once, whatever the spelling of its path."""
    paths = [path for _, _, path in listing.images]
    seen: dict[str, str] = {}
    for path in paths:
        normal = posixpath.normpath(path)
        if normal in seen:
            spelling = "" if seen[normal] == path else f", as {seen[normal]!r} too"
            raise CptError(f"{entry.name}: image {path!r} is listed twice{spelling}; fix the list that names it")
        seen[normal] = path
    faults = map_blocks(lambda path: _fault(root / path), paths, _THREADS, 1024)
    if bad := [(path, fault) for path, fault in zip(paths, faults, strict=True) if fault]:
        path, _ = bad[0]
        lines = [f"{root / path} ({fault})" for path, fault in bad]
        count = f"{len(bad)} images are missing or empty, the first is " if len(bad) > 1 else ""
        place = f" of {listing.named[path]}" if path in listing.named else ""
        fix = f"get the dataset again: {again(entry, root / path)}"
        if entry.layout == "csv":
            fix = "put it there, or delete the row"
        elif "\\" in path:
            fix = "write the paths of the split file with / instead of \\"
        raise MissingImagesError(f"{entry.name}: {count}{lines[0]}{place}; {fix}", lines)


def digest(entry: Entry) -> str:
    """Return a hash of what a layout finds: classes, and the images with their parts, sizes and times.

    Other files beside the images do not count. Where the layout finds nothing, the reason does.
    """
    try:
        listing = LAYOUTS[entry.layout](entry)
    except CptError as error:
        return files.sha256_text(files.canonical_json(str(error)))
    root = listing.image_root
    if listing.inside is not None:
        paths = listing.inside.files
    else:
        assert root is not None, "an embedded dataset has no files"
        paths = [root / path for _, _, path in listing.images]
    stamps = list(map_blocks(_stamp, paths, _THREADS, 1024))
    return files.sha256_text(files.canonical_json([listing.class_names, listing.images, stamps]))


def check(entry: Entry, listing: Listing) -> None:
    """Compare a listing with what the catalog expects of a complete copy (``Expected``).

    Raises:
        CptError: naming what differs.
    """
    expected = entry.expected
    assert expected is not None
    names = listing.class_names
    named = None if entry.split is None or listing.derived else entry.folder / entry.split
    fix = f"get it again: {again(entry, named)}"  # a split file decides on names and parts
    found = files.sha256_text("\n".join(names))
    if (len(names), found) != (expected.classes, expected.names_sha256 or found):
        raise CptError(f"{entry.name}: its {len(names)} class names are not the published {expected.classes}; {fix}")
    middle = (len(names) + 1) // 2
    boundary = (names[0], names[middle - 1], names[middle], names[-1])
    if expected.boundary not in (None, boundary):
        raise CptError(
            f"{entry.name}: base and new classes meet at {boundary[1:3]}, not at {expected.boundary[1:3]}; {fix}"
        )
    halves = [("base" if label < middle else "new", part) for part, label, _ in listing.images]
    count = Counter([*halves, *(("images", part) for _, part in halves)])
    for half in ("images", "base", "new"):
        for part, wanted in getattr(expected, half).items():
            if count[half, part] != wanted:
                kind = "" if half == "images" else f" of {half} classes"
                raise CptError(
                    f"{entry.name}: {count[half, part]} {part} images{kind} instead of {wanted}; "
                    f"this is no complete copy of the published release, {fix}"
                )


def make_manifest(
    entry: Entry,
    output_dir: Path,
    notice: Callable[[str], None] = lambda line: None,
    listing: Listing | None = None,
) -> Path:
    """Write ``manifest.parquet``; return its path.

    ``images.npy`` beside it holds the images of a packed dataset, ``images/`` those that lie inside of other files.

    Rows are sorted by part and keep the layout's own order inside it, which the few-shot draw follows.
    ``content_hash`` covers the rows and the pixels or the files' bytes (their sizes, where the catalog says so), not
    where they lie.

    Args:
        entry: the dataset.
        output_dir: folder to write into.
        notice: called with every line of ``cpt.data.notices``.
        listing: the images, where they are not those that the entry's layout finds.

    Raises:
        CptError: see ``find_images``.
    """
    import pyarrow as pa

    listing = find_images(entry) if listing is None else _checked(entry, listing)
    if listing.inside is not None:
        listing = extract(entry.name, listing, output_dir)
    for line in notices(entry, listing):
        notice(line)
    class_names = [name.replace("_", " ") for name in listing.class_names]
    order = sorted(range(len(listing.images)), key=lambda i: PARTS.index(listing.images[i][0]))
    images = [listing.images[i] for i in order]
    columns: dict[str, list[Any]] = {
        "path": [path for _, _, path in images],
        "index": [-1] * len(images) if listing.pixels is None else order,
        "label": [label for _, label, _ in images],
        "class_name": [class_names[label] for _, label, _ in images],
        "part": [part for part, _, _ in images],
    }
    if listing.pixels is not None:
        files.write_array(output_dir / PACKED, listing.pixels)
    content_hash = _content_hash(entry, listing, columns, notice)
    files.write_parquet(
        output_dir / "manifest.parquet",
        pa.table(columns),
        SCHEMA,
        dataset=entry.name,
        layout=entry.layout,
        image_root=_written_root(listing, output_dir),
        derived=listing.derived,
        content_hash=content_hash,
    )
    return output_dir / "manifest.parquet"


def _written_root(listing: Listing, output_dir: Path) -> str:
    """The folder of the images as the manifest has it: relative to the manifest where they are written beside it."""
    root = listing.image_root
    if root is None:
        return "."
    return str(root.relative_to(output_dir) if root.is_relative_to(output_dir) else root)


def _content_hash(entry: Entry, listing: Listing, columns: dict[str, list[Any]], notice: Callable[[str], None]) -> str:
    """Hash the rows and the pixels, or what the catalog says of the files; copies among these are noticed."""
    content = hashlib.sha256(files.canonical_json(columns).encode())
    if listing.pixels is not None:
        content.update(str(listing.pixels.shape).encode())
        content.update(np.ascontiguousarray(listing.pixels).data)
    if listing.image_root is not None:
        read = files.sha256_file if entry.fingerprint == "bytes" else os.path.getsize
        paths = [listing.image_root / path for path in columns["path"]]
        prints = [str(value) for value in map_blocks(read, paths, _THREADS, 64)]
        content.update("".join(prints).encode())
        images = list(zip(columns["part"], columns["label"], columns["path"], strict=True))
        for line in copies(images, prints if entry.fingerprint == "bytes" else []):
            notice(line)
    return content.hexdigest()


def _fault(path: Path) -> str:
    """What is wrong with an image's file, as far as the folder tells."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except (OSError, ValueError) as error:  # ValueError: a list names a path with a NUL
        return getattr(error, "strerror", None) or str(error)
    if not stat.S_ISREG(found.st_mode):
        return "a folder" if stat.S_ISDIR(found.st_mode) else "no file"
    return "" if found.st_size else "empty"


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, None when it is not there."""
    with contextlib.suppress(OSError, ValueError):
        found = path.stat()
        return found.st_size, found.st_mtime_ns
    return None
