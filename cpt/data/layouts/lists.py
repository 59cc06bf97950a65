"""Layouts of the long-tailed benchmarks: lists of `path label` lines, and iNaturalist's JSON."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cpt.data.layouts.listing import Listing, again
from cpt.errors import CptError
from cpt.files.hashes import parse_json

if TYPE_CHECKING:
    from cpt.data.entry import Entry

CATEGORIES = "categories.json"


def lists(entry: Entry) -> Listing:
    """Read a list per part with a line `path label` per image; labels are positions in ``class_names``.

    Images keep the order of the lists. Source: repo zhmiao/OpenLongTailRecognition-OLTR (ImageNet-LT, Places-LT).
    Where ``class_names`` are given by folder, labels are positions among the sorted folders, and an image must lie in
    its class's folder.

    Raises:
        CptError: a list is missing, a line is not `path label`, or a label has no name or no image.
    """
    names = entry.class_names
    if not isinstance(names, list | dict):
        raise CptError(f"{entry.name}.class_names: layout {entry.layout} needs names in the order of the labels")
    folders = sorted(names) if isinstance(names, dict) else None
    class_names = [names[folder] for folder in folders] if isinstance(names, dict) and folders else list(names)
    images: list[tuple[str, int, str]] = []
    named: dict[str, str] = {}
    for part, file in entry.lists.items():
        path = entry.folder / file
        for number, line in enumerate(_text(entry, path).splitlines(), 1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            image, label = _line(where, line, len(class_names))
            if folders and PurePosixPath(image).parent.name != folders[label]:
                raise CptError(f"{where}: {image!r} is not in the folder {folders[label]!r} of label {label}; fix it")
            images.append((part, label, image))
            named.setdefault(image, where)
    return _listing(entry, class_names, images, named)


def _line(where: str, line: str, classes: int) -> tuple[str, int]:
    image, _, label = line.strip().rpartition(" ")
    image = image.strip()
    if not image or not label.isdecimal():
        raise CptError(f"{where}: {line.strip()[:100]!r} is not `path label`; fix it")
    if int(label) >= classes:
        raise CptError(f"{where}: label {label} has no name: class_names has {classes}; add it or fix the label")
    if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
        raise CptError(f"{where}: {image!r} leads out of the dataset's folder; write it relative to its images")
    return image, int(label)


def inaturalist(entry: Entry) -> Listing:
    """Read iNaturalist's annotations: a JSON of images, annotations and categories per part.

    Labels are positions among the sorted category ids. Names are those of ``categories.json`` beside them, where it is
    there (the 2018 annotations were released without names). Source: repo visipedia/inat_comp, 2018.

    Raises:
        CptError: a file is missing or holds something else, or a category has no image.
    """
    read = {part: (entry.folder / file, _json(entry, entry.folder / file)) for part, file in entry.lists.items()}
    categories = entry.folder / CATEGORIES
    first, content = next(iter(read.values()))
    source = categories if categories.is_file() else first
    images: list[tuple[str, int, str]] = []
    named: dict[str, str] = {}
    try:
        listed = _json(entry, categories) if categories.is_file() else content["categories"]
        names = {category["id"]: str(category["name"]) for category in sorted(listed, key=lambda found: found["id"])}
        label = {number: place for place, number in enumerate(names)}
        for part, (path, found) in read.items():
            source = path
            files = {image["id"]: image["file_name"] for image in found["images"]}
            for annotation in found["annotations"]:
                image = files[annotation["image_id"]]
                images.append((part, label[annotation["category_id"]], image))
                named.setdefault(image, f"{path}: image {annotation['image_id']}")
    except (KeyError, TypeError, AttributeError) as error:
        raise CptError(
            f"{source}: holds no images, annotations and categories that fit ({type(error).__name__}: {error}); get "
            "the published file"
        ) from None
    return _listing(entry, list(names.values()), images, named)


def _listing(
    entry: Entry, class_names: list[str], images: list[tuple[str, int, str]], named: dict[str, str]
) -> Listing:
    if lacking := sorted(set(range(len(class_names))) - {label for _, label, _ in images}):
        raise CptError(
            f"{entry.name}: {len(lacking)} classes have no image in the lists, the first is "
            f"{class_names[lacking[0]]!r}; get the published lists, or delete their names"
        )
    return Listing(class_names, images, image_root=entry.folder / entry.images, named=named)


def _json(entry: Entry, path: Path) -> Any:
    try:
        return parse_json(_text(entry, path))
    except ValueError as error:
        raise CptError(f"{path}: damaged, or no JSON ({error}); get it again: {again(entry, path)}") from None


def _text(entry: Entry, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        how = f"get it with `cpt data fetch {entry.name}`" if entry.files else "put it there"
        raise CptError(f"{path}: not found; {how}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CptError(f"{path}: cannot be read ({error}); get it again: {again(entry, path)}") from None
