"""What a layout finds: the images of a dataset with their labels and parts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cpt.data.catalog import Entry

from cpt.files import canonical_json, sha256_text

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """What a layout finds.

    Attributes:
        class_names: names in label order.
        images: (part, label, path relative to the image root) in the layout's own order.
        image_root: absolute folder of the images, None when packed.
        pixels: uint8 (N, H, W, 3) in the order of ``images`` when packed, None when the images are files.
        derived: the parts were made by a rule because the published split was not there.
    """

    class_names: list[str]
    images: list[tuple[str, int, str]]
    image_root: Path | None = None
    pixels: NDArray[np.uint8] | None = None
    derived: bool = False


def digest(folder: Path) -> str:
    """Return a hash of the paths, sizes and times of all files below a folder; of nothing when it is not there."""
    found = []
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            try:
                status = os.stat(os.path.join(where, name))
            except OSError:  # a link to nowhere: making the manifest says so
                continue
            found.append([os.path.relpath(where, folder), name, status.st_size, status.st_mtime_ns])
    return sha256_text(canonical_json(found))


def class_folders(folder: Path) -> dict[str, list[str]]:
    """Return class folder -> names of its images, both sorted by code points, hidden ones left out."""
    with os.scandir(folder) as listing:
        names = sorted(item.name for item in listing if item.is_dir() and not item.name.startswith("."))
    return {name: sorted(image_files(folder / name)) for name in names}


def image_files(folder: Path) -> list[str]:
    """Return the names of the image files of a folder, hidden ones left out, in the folder's order."""
    with os.scandir(folder) as listing:
        return [item.name for item in listing if item.name.lower().endswith(SUFFIXES) and not item.name.startswith(".")]


def again(entry: Entry, path: Path | None = None) -> str:
    """Return how to mend a copy that is not whole: what is there at all is not fetched until it is out of the way.

    Args:
        entry: the dataset.
        path: what is missing or wrong; None: its images.
    """
    images = entry.folder / entry.images
    path = images if path is None else path
    if entry.gated or not entry.files:
        return f"complete {images if path.is_relative_to(images) else path} by hand"
    places = [entry.folder / name for item in entry.files for name in item.provides]
    place = next((place for place in places if path.is_relative_to(place)), images)
    return f"move {place} away, or delete it, and run `cpt data fetch {entry.name}`"
