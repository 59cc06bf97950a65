"""The layout of a dataset of one's own: folders of images, or a split file over them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cpt.data.layouts.listing import SUFFIXES, Listing, class_folders, is_folder
from cpt.data.layouts.published import split_json
from cpt.data.manifest import PARTS
from cpt.errors import CptError

if TYPE_CHECKING:
    from cpt.data.entry import Entry


def folders(entry: Entry) -> Listing:
    """List ``<root>/<part>/<class folder>/<image>``; class folders and images in the order of their names.

    With a split file, or with ``derived_split``, images may lie anywhere below the root instead.

    Raises:
        CptError: a part is missing or a link to nowhere, or ``class_names`` does not name the class folders.
    """
    if entry.split or entry.derived_split:
        return split_json(entry)
    root = entry.folder
    parts = [part for part in PARTS if is_folder(root / part)]
    needed = ["test"] if entry.shift_of else ["train", "test"]
    if missing := [part for part in needed if part not in parts]:
        cut = root.is_dir() and not entry.shift_of and any(class_folders(root).values())
        other = "; or cut the class folders there by `derived_split: true` and `derive: {rule: folders}`" if cut else ""
        raise CptError(
            f"{entry.name}.root: {root} has no folder {missing[0]}/; lay images out as "
            f"{root}/{missing[0]}/<class>/<image>{other}"
        )
    found = {part: class_folders(root / part) for part in parts}
    names = sorted({name for names in found.values() for name in names})
    labels, class_names = _labels(entry, root, names)
    images = [
        (part, labels[folder], f"{part}/{folder}/{name}")
        for part in parts
        for folder, names in found[part].items()
        for name in names
    ]
    images.sort(key=lambda image: image[1])  # label order, which a mapping of class names sets
    empty = set(range(len(class_names))) - {label for _, label, _ in images}
    if empty:
        raise CptError(
            f"{entry.name}: class {class_names[min(empty)]!r} has no image under {root}; "
            f"add one (a file ending in {', '.join(SUFFIXES)}) or delete the folder"
        )
    return Listing(class_names, images, image_root=root)


def _labels(entry: Entry, root: Path, names: list[str]) -> tuple[dict[str, int], list[str]]:
    """Return folder -> label, and the class names in label order."""
    field = f"{entry.name}.class_names"
    given = entry.class_names
    if given is None:
        given = names
    assert not isinstance(given, str)  # load_catalog has read the file
    if isinstance(given, list):
        if len(given) != len(names):
            raise CptError(
                f"{field}: {len(given)} names for {len(names)} class folders in {root}; "
                "name each folder in sorted order, or write a mapping folder: name"
            )
        return {folder: label for label, folder in enumerate(names)}, given
    if unknown := [folder for folder in names if folder not in given]:
        raise CptError(f"{field}: class folder {unknown[0]!r} in {root} has no name; add it to the mapping")
    present = [folder for folder in given if folder in set(names)]
    if len(present) < len(given) and entry.shift_of is None:
        absent = next(folder for folder in given if folder not in set(names))
        raise CptError(f"{field}: {root} has no class folder {absent!r}; add it or delete it from the mapping")
    return {folder: label for label, folder in enumerate(present)}, [given[folder] for folder in present]
