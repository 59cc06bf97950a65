"""The layout of a dataset of one's own: folders of images, or a split file over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpt.data.layouts.listing import SUFFIXES, Listing, class_folders, is_folder, label_classes
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
        other = "; or cut the class folders there by `derived_split: true`" if cut else ""
        raise CptError(
            f"{entry.name}.root: {root} has no folder {missing[0]}/; lay images out as "
            f"{root}/{missing[0]}/<class>/<image>{other}"
        )
    found = {part: class_folders(root / part) for part in parts}
    names = sorted({name for names in found.values() for name in names})
    labels, class_names = label_classes(entry, names, "class folder", root)
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
