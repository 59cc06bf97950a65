"""What of the catalog's datasets is there: present, missing, incomplete or damaged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cpt.data.decoding import decode_bytes, failures, undecodable
from cpt.data.download.prepare import needed, present
from cpt.data.entry import OWN
from cpt.data.layouts.listing import SUFFIXES
from cpt.data.make_manifest import MissingImagesError, find_images
from cpt.data.notices import copies, notices
from cpt.data.threads import map_blocks
from cpt.errors import CptError
from cpt.files.stage_files import sha256_file

if TYPE_CHECKING:
    from cpt.data.entry import Entry
    from cpt.data.layouts.listing import Listing

_BLOCK = 128
"""Images inside of other files that are held at a time."""


@dataclass(frozen=True)
class State:
    """State of one dataset on this machine.

    Attributes:
        state: ``complete``, ``derived split``, ``missing`` or ``damaged``.
        found: number of images by part.
        advice: what is wrong and what fixes it; empty when complete.
        notices: what looks odd and may be meant, a line each (``cpt.data.notices``); of damaged images all but the one
            in the advice.
    """

    name: str
    state: str
    found: dict[str, int]
    advice: str = ""
    notices: tuple[str, ...] = ()


def check_dataset(entry: Entry, *, decode: bool = False, workers: int = 8) -> State:
    """Look at a dataset's files without changing any.

    Args:
        entry: a dataset whose images are files.
        decode: read every image too, which takes minutes for large datasets: it must decode, and a test image should
            be no copy of a training image.
        workers: threads that decode.
    """
    if entry.folder.is_file():
        advice = f"{entry.folder} is a file: root is the folder that holds it"
        return State(entry.name, "missing", {}, advice + (", split its name" if entry.layout == "csv" else ""))
    missing = [name for item in needed(entry) if not present(entry.folder, item) for name in item.provides]
    if missing or not (entry.folder / entry.images).is_dir():
        advice = f"cpt data fetch {entry.name}" if entry.files else f"put the images into {entry.folder}"
        if entry.gated and not (entry.folder / entry.images).is_dir():
            advice = entry.gated.format(root=entry.folder)
        lacking = f"no {', '.join(missing)}: " if missing and entry.folder.is_dir() else ""
        return State(entry.name, "missing", {}, lacking + advice)
    try:
        listing = find_images(entry)
    except CptError as error:
        others = error.lines[1:] if isinstance(error, MissingImagesError) else []
        if decode and not isinstance(error, MissingImagesError):
            others = undecodable(list(_image_files(entry.folder / entry.images)), workers)
        return State(entry.name, "damaged", {}, str(error).removeprefix(f"{entry.name}: "), tuple(others))
    found = dict(Counter(part for part, _, _ in listing.images))
    told = notices(entry, listing)
    if decode:
        bad, hashes = _read(entry, listing, workers)
        if bad:
            advice = f"{len(bad)} images cannot be decoded, the first is {bad[0]}"
            return State(entry.name, "damaged", found, advice, tuple(bad[1:]))
        told += copies(listing.images, hashes)
    if listing.derived:
        own = "cpt has cut it into 50 % training, 20 % validation and 30 % test images of each class"
        advice = own if entry.layout in OWN else "not comparable with published numbers"
        return State(entry.name, "derived split", found, advice, tuple(told))
    return State(entry.name, "complete", found, notices=tuple(told))


def _image_files(folder: Path) -> Iterator[Path]:
    """Yield what looks like an image below a folder, whether or not a layout lists it."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(place, name) for name in sorted(files) if Path(name).suffix.lower() in SUFFIXES)


def _read(entry: Entry, listing: Listing, workers: int) -> tuple[list[str], list[str]]:
    """Return why images cannot be decoded, and the hashes of all images where every one can be."""
    if listing.inside is not None:
        hashes: dict[str, str] = {}
        bad: list[str] = []
        contents = listing.inside.read()
        while block := list(islice(contents, _BLOCK)):
            bad += failures(lambda image: decode_bytes(image[1], f"image {image[0]}"), block, workers)
            hashes |= {path: sha256(content).hexdigest() for path, content in block}
        return bad, [hashes[path] for _, _, path in listing.images]
    root = listing.image_root
    assert root is not None, "an embedded dataset is not checked"
    paths = [root / path for _, _, path in listing.images]
    if (bad := undecodable(paths, workers)) or entry.fingerprint != "bytes":
        return bad, []
    return [], list(map_blocks(sha256_file, paths, workers, 64))
