"""Layouts of published datasets: split files, Aircraft's lists, ImageNet's folders and its shifts.

Label order is part of the benchmark: it decides which classes are base and which are new.
"""

from __future__ import annotations

import reprlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cpt.data.layouts.derived import derive
from cpt.data.layouts.listing import Listing, again, class_folders, image_files
from cpt.data.manifest import PARTS
from cpt.errors import CptError, nearest
from cpt.files.hashes import parse_json

if TYPE_CHECKING:
    from cpt.data.entry import Entry

_short = reprlib.Repr()  # whatever a file holds, in one line
_short.maxstring = 100


def split_json(entry: Entry) -> Listing:
    """Read a split file: train, val and test lists of [path below the images, label, class name].

    Source: repo KaiyangZhou/CoOp, datasets/oxford_pets.py (``read_split``). The order of the lists is kept, because
    the few-shot draw follows it. With ``derived_split`` the parts are made instead (``cpt.data.layouts.derived``).
    """
    if entry.derived_split:
        return derive(entry)
    path, lists = read_split_file(entry)
    fix = _fix(entry)
    names: dict[int, str] = {}
    images = []
    for part, items in lists.items():
        for image, label, name in items:
            if names.setdefault(label, name) != name:
                raise CptError(f"{path}: label {label} is {names[label]!r} and {name!r}; {fix}")
            images.append((part, label, image))
    if not names:
        raise CptError(f"{path}: lists no image; {fix}")
    if sorted(names) != list(range(len(names))):
        least, most = _short.repr(min(names)), _short.repr(max(names))
        fix = fix if entry.files else "number the classes from 0 without gaps"
        raise CptError(f"{path}: labels are not 0..{len(names) - 1} but reach from {least} to {most}; {fix}")
    class_names = [names[label] for label in range(len(names))]
    if entry.class_names is not None and class_names != entry.class_names:
        raise CptError(f"{path}: its class names are not those of {entry.name}.class_names; {fix}")
    return Listing(class_names, images, image_root=entry.folder / entry.images)


def read_split_file(entry: Entry) -> tuple[Path, dict[str, list[tuple[str, int, str]]]]:
    """Return the path of an entry's split file, and part -> (image, label, class name) in the order of the file.

    Raises:
        CptError: it is missing or not such a file.
    """
    assert entry.split is not None
    path = entry.folder / entry.split
    try:
        lists = parse_json(path.read_text(encoding="utf-8-sig"), _without_repeats)
    except FileNotFoundError:
        other = ", or set derived_split: true to make one that is not comparable" if entry.derive else ""
        raise CptError(f"{path}: not found; {_source(entry)}{other}") from None
    except (OSError, ValueError) as error:
        fix = "delete it and fetch it again" if entry.files else "fix it"
        raise CptError(f"{path}: damaged, or no JSON ({error}); {fix}") from None
    if not isinstance(lists, dict) or not {"train", "test"} <= set(lists):
        raise CptError(f"{path}: no split file; it must hold the lists train, val and test")
    if unknown := sorted(set(lists) - set(PARTS)):
        raise CptError(f"{path}: {unknown[0]!r} is no part; {nearest(unknown[0], PARTS)}")
    if not all(isinstance(lists.get(part, []), list) for part in PARTS):
        raise CptError(f"{path}: no split file; train, val and test must be lists")
    return path, {part: [_item(entry, path, part, item) for item in lists.get(part, [])] for part in PARTS}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _item(entry: Entry, path: Path, part: str, item: Any) -> tuple[str, int, str]:
    match item:
        case [str(image), int(label), str(name)] if not isinstance(label, bool):
            where = PurePosixPath(image)
            if where.is_absolute() or ".." in where.parts:
                raise CptError(f"{path}: {part}: {image!r} leads out of the dataset's folder; {_fix(entry)}")
            return image, label, name
    raise CptError(f"{path}: {part}: {_short.repr(item)} is not [path, label, class name]; {_fix(entry)}")


def _fix(entry: Entry) -> str:
    return "get the published file" if entry.files else "fix the file"


def _source(entry: Entry) -> str:
    """How to get a file that is missing."""
    return f"get it with `cpt data fetch {entry.name}`" if entry.files else "put it there"


def aircraft(entry: Entry) -> Listing:
    """Read FGVC-Aircraft's variant lists; labels are the lines of variants.txt.

    Source: repo KaiyangZhou/CoOp, datasets/fgvc_aircraft.py.
    """
    names = _lines(entry, "variants.txt")
    label = {name: i for i, name in enumerate(names)}
    images = []
    for part in PARTS:
        file = f"images_variant_{part}.txt"
        for line in _lines(entry, file):
            number, _, name = line.partition(" ")
            if name not in label:
                raise CptError(f"{entry.folder / file}: {name!r} is not in variants.txt; fetch the dataset again")
            images.append((part, label[name], f"{number}.jpg"))
    return Listing(names, images, image_root=entry.folder / entry.images)


def imagenet(entry: Entry) -> Listing:
    """List ``train/<wnid>/*`` and ``val/<wnid>/*``, which is the test part; labels are the sorted wnids.

    Images are listed by name, so that the few-shot draw does not depend on the disk as it does in CoOp. Copies whose
    names end in ``_<wnid>.JPEG``, as on Hugging Face, are listed in the same order.
    """
    folders, class_names = _classes(entry)
    images = []
    for part, folder in (("train", "train"), ("test", "val")):
        found = _in_folders(entry, folder, folders)
        images += [(part, label, f"{folder}/{path}") for label, path in sorted(found, key=_without_wnid)]
    return Listing(class_names, images, image_root=entry.folder / entry.images)


def _without_wnid(image: tuple[int, str]) -> tuple[int, str]:
    """(label, path) with ``<wnid>/<name>_<wnid>.<suffix>`` as ``<wnid>/<name>.<suffix>``."""
    label, path = image
    stem, dot, suffix = path.rpartition(".")
    return label, stem.removesuffix(f"_{stem.partition('/')[0]}") + dot + suffix


def wnid_folders(entry: Entry) -> Listing:
    """List ``<wnid>/*``, test images only: ImageNet-Sketch, and -A and -R with 200 of the classes."""
    folders, class_names = _classes(entry)
    images = [("test", label, path) for label, path in _in_folders(entry, ".", folders)]
    return Listing(class_names, images, image_root=entry.folder / entry.images)


def numbered_folders(entry: Entry) -> Listing:
    """List ``<number>/*``, test images only: the number is the label, whatever the order of the names (ImageNetV2)."""
    _, class_names = _classes(entry)
    folders = [str(label) for label in range(len(class_names))]
    images = [("test", label, path) for label, path in _in_folders(entry, ".", folders)]
    return Listing(class_names, images, image_root=entry.folder / entry.images)


def _in_folders(entry: Entry, below: str, folders: list[str]) -> list[tuple[int, str]]:
    """(label, path) of the images of exactly these class folders, in the order given."""
    root = entry.folder / entry.images / below
    if not root.is_dir():
        how = entry.gated.format(root=entry.folder) if entry.gated else _source(entry)
        raise CptError(f"{entry.name}: {root} is missing; {how}")
    if flat := image_files(root):
        raise CptError(
            f"{entry.name}: {root} holds images ({flat[0]}) instead of class folders; sort them into folders"
        )
    found = class_folders(root)
    if other := sorted(set(found) ^ set(folders)):
        what = "a class folder too many" if other[0] in found else "no class folder"
        raise CptError(
            f"{entry.name}: {root} has {what} {other[0]!r} ({len(other)} differ); "
            f"get the published release: {again(entry)}"
        )
    return [(label, f"{folder}/{file}") for label, folder in enumerate(folders) for file in found[folder]]


def _classes(entry: Entry) -> tuple[list[str], list[str]]:
    """Return the sorted class folders, and the class names in their order."""
    names = entry.class_names
    if not isinstance(names, dict):
        raise CptError(f"{entry.name}.class_names: layout {entry.layout} needs folder: name, or a file of such lines")
    return sorted(names), [names[folder] for folder in sorted(names)]


def _lines(entry: Entry, file: str) -> list[str]:
    path = entry.folder / file
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "not found" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise CptError(f"{path}: {reason}; {_source(entry)}") from None
    return [line.strip() for line in lines if line.strip()]
