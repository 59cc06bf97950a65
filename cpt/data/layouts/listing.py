"""What a layout finds: the images of a dataset with their labels and parts."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cpt.data.entry import Entry

from cpt.errors import CptError

SUFFIXES = (
    ".apng", ".avif", ".avifs", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf",
    ".jpg", ".jpx", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""What names of images end in: whatever Pillow calls the formats that are decoded."""
_JUNK = {"$recycle.bin", "@eadir", "__macosx", "desktop.ini", "lost+found", "thumbs.db"}
"""Files and folders that computers put beside images, in lower case; so are those whose names start with a dot."""


@dataclass(frozen=True)
class Inside:
    """Images that lie inside of other files.

    Attributes:
        files: those files.
        read: yields (path, bytes) of every image of the listing, in any order; no bytes where the file has none.
    """

    files: list[Path]
    read: Callable[[], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True)
class Listing:
    """What a layout finds.

    Attributes:
        class_names: names in label order.
        images: (part, label, path relative to the image root) in the layout's own order.
        image_root: absolute folder of the images; None when they are packed, or inside of other files.
        pixels: uint8 (N, H, W, 3) in the order of ``images`` when packed, None when the images are files.
        derived: the parts were made by a rule because the published split was not there.
        inside: how to get at images inside of other files, None elsewhere.
        named: path -> the place of a list that names it, for messages; empty where no list does.
    """

    class_names: list[str]
    images: list[tuple[str, int, str]]
    image_root: Path | None = None
    pixels: NDArray[np.uint8] | None = None
    derived: bool = False
    inside: Inside | None = None
    named: Mapping[str, str] = field(default_factory=dict)


def as_read(name: str) -> str:
    """Return a class name as CLIP reads it: its tokenizer knows neither case nor ways to compose a letter."""
    return " ".join(unicodedata.normalize("NFC", name.replace("_", " ")).lower().split())


def label_classes(entry: Entry, found: list[str], kind: str, place: Path) -> tuple[dict[str, int], list[str]]:
    """Return label by what a dataset calls its classes, and the class names in label order.

    Args:
        entry: its ``class_names`` name the classes; where there are none, what is found does.
        found: class folders, or labels of a table, in label order.
        kind: what these are, for messages.
        place: where they were found.

    Raises:
        CptError: ``class_names`` does not name exactly these.
    """
    field, given = f"{entry.name}.class_names", entry.class_names
    if given is None:
        given = found
    assert not isinstance(given, str)  # load_catalog has read the file
    if isinstance(given, list):
        if len(given) != len(found):
            raise CptError(
                f"{field}: {len(given)} names for {len(found)} {kind}s in {place}; "
                f"name each {kind} in sorted order, or write a mapping {kind.split()[-1]}: name"
            )
        return {name: label for label, name in enumerate(found)}, given
    if unknown := [name for name in found if name not in given]:
        raise CptError(f"{field}: {kind} {unknown[0]!r} in {place} has no name; add it to the mapping")
    present = [name for name in given if name in set(found)]
    if len(present) < len(given) and entry.shift_of is None:
        absent = next(name for name in given if name not in set(found))
        raise CptError(f"{field}: {place} has no {kind} {absent!r}; add it or delete it from the mapping")
    return {name: label for label, name in enumerate(present)}, [given[name] for name in present]


def class_folders(folder: Path) -> dict[str, list[str]]:
    """Return class folder -> names of its images, both sorted by code points.

    Hidden files and folders, and those that computers put there, are left out; links are followed.

    Raises:
        CptError: a folder cannot be read, or a link in ``folder`` leads nowhere.
    """
    names = sorted(item.name for item in _items(folder) if is_folder(item))
    return {name: sorted(image_files(folder / name)) for name in names}


def image_files(folder: Path) -> list[str]:
    """Return the names of the image files of a folder, hidden ones left out, in the folder's order.

    A link to nowhere is one of them, so that it is reported as a missing image.

    Raises:
        CptError: the folder cannot be read.
    """
    return [item.name for item in _items(folder) if _is_image(item.name) and not os.path.isdir(item)]


def is_folder(path: Path | os.DirEntry[str]) -> bool:
    """Return whether a folder, or a link to one, is there.

    Raises:
        CptError: it is a link to nowhere.
    """
    if path.is_symlink():
        try:
            path.stat()
        except OSError as error:
            raise CptError(
                f"{os.fspath(path)!r} is a link to {os.readlink(path)!r} ({error.strerror}); put there what it leads "
                "to (is its disk mounted?), or delete the link"
            ) from None
    return path.is_dir()


def unlisted(folder: Path) -> tuple[list[str], list[Path]]:
    """Return what ``class_folders`` does not list of a folder.

    Returns:
        Suffixes of the files in class folders that are no images by their names, and the images that lie beside class
        folders or in folders inside of them.
    """
    suffixes, images = [], [folder / name for name in image_files(folder)]
    for item in _items(folder):
        for inner in _items(folder / item.name) if is_folder(item) else []:
            if os.path.isdir(inner):
                images += _images_below(Path(inner))
            elif not _is_image(inner.name):
                suffixes.append(os.path.splitext(inner.name)[1].lower())
    return suffixes, images


def _images_below(folder: Path) -> Iterator[Path]:
    """Images of a folder and the folders inside of it; links inside are not followed, which may lead in circles."""
    for where, folders, names in os.walk(folder):
        folders[:] = filter(_is_wanted, folders)
        yield from (Path(where, name) for name in names if _is_image(name) and _is_wanted(name))


def _items(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return [item for item in listing if _is_wanted(item.name)]
    except OSError as error:
        raise CptError(f"{folder}: cannot be read ({error.strerror}); fix the folder or delete it") from None


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _JUNK


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def again(entry: Entry, path: Path | None = None) -> str:
    """Return how to fix a copy that is not whole: what is there at all is not fetched until it is out of the way.

    Args:
        entry: the dataset.
        path: what is missing or wrong; None: its images.
    """
    images = entry.folder / entry.images
    path = images if path is None else path
    if entry.gated or not entry.files:
        return f"put its files into {images if path.is_relative_to(images) else path} yourself"
    places = [entry.folder / name for item in entry.files for name in item.provides]
    place = next((place for place in places if path.is_relative_to(place)), images)
    return f"move {place} away, or delete it, and run `cpt data fetch {entry.name}`"
