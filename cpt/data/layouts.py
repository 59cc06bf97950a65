"""Making manifests. A layout says how the images of a dataset are found or made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cpt import files
from cpt.data.manifest import PARTS, SCHEMA
from cpt.errors import CptError, nearest

if TYPE_CHECKING:
    from cpt.data.catalog import Entry

PACKED = "images.npy"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """What a layout finds.

    Attributes:
        class_names: names in label order.
        images: (part, label, path relative to the image root) in the layout's own order.
        image_root: absolute folder of the images, None when packed.
        pixels: uint8 (N, H, W, 3) in the order of ``images`` when packed, None when the images are files.
    """

    class_names: list[str]
    images: list[tuple[str, int, str]]
    image_root: Path | None = None
    pixels: NDArray[np.uint8] | None = None


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


def folders(entry: Entry) -> Listing:
    """List ``<root>/<part>/<class folder>/<image>``; class folders and images in the order of their names."""
    assert entry.root is not None
    root = Path(entry.root).expanduser().absolute()
    parts = [part for part in PARTS if (root / part).is_dir()]
    needed = ["test"] if entry.shift_of else ["train", "test"]
    if missing := [part for part in needed if part not in parts]:
        raise CptError(
            f"{entry.name}.root: {root} has no folder {missing[0]}/; lay images out as "
            f"{root}/{missing[0]}/<class>/<image>"
        )
    found = {part: _class_folders(root / part) for part in parts}
    class_folders = sorted({name for names in found.values() for name in names})
    labels, class_names = _labels(entry, root, class_folders)
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


def _class_folders(folder: Path) -> dict[str, list[str]]:
    """Return class folder -> names of its images, both sorted."""
    with os.scandir(folder) as listing:
        names = sorted(item.name for item in listing if item.is_dir() and not item.name.startswith("."))
    return {name: sorted(_images(folder / name)) for name in names}


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as listing:
        return [item.name for item in listing if item.name.lower().endswith(SUFFIXES) and not item.name.startswith(".")]


def _labels(entry: Entry, root: Path, class_folders: list[str]) -> tuple[dict[str, int], list[str]]:
    """Return folder -> label, and the class names in label order."""
    field = f"{entry.name}.class_names"
    given = entry.class_names
    if given is None:
        given = class_folders
    if isinstance(given, list):
        if len(given) != len(class_folders):
            raise CptError(
                f"{field}: {len(given)} names for {len(class_folders)} class folders in {root}; "
                "name each folder in sorted order, or write a mapping folder: name"
            )
        return {folder: label for label, folder in enumerate(class_folders)}, given
    if unknown := [folder for folder in class_folders if folder not in given]:
        raise CptError(f"{field}: class folder {unknown[0]!r} in {root} has no name; add it to the mapping")
    present = [folder for folder in given if folder in set(class_folders)]
    if len(present) < len(given) and entry.shift_of is None:
        absent = next(folder for folder in given if folder not in set(class_folders))
        raise CptError(f"{field}: {root} has no class folder {absent!r}; add it or delete it from the mapping")
    return {folder: label for label, folder in enumerate(present)}, [given[folder] for folder in present]


LAYOUTS: dict[str, Callable[[Entry], Listing]] = {"embedded": embedded, "folders": folders}


def make_manifest(entry: Entry, output_dir: Path) -> Path:
    """Write ``manifest.parquet``, and ``images.npy`` for a packed dataset; return the manifest's path.

    Rows are sorted by part and keep the layout's own order inside it, which the few-shot draw follows.
    ``content_hash`` covers the rows and the pixels or the files' bytes, not where they lie.

    Raises:
        CptError: the layout does not find what it needs.
    """
    import pyarrow as pa

    listing = LAYOUTS[entry.layout](entry)
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
        with files.atomic(output_dir / PACKED) as temporary:
            np.save(temporary, listing.pixels)
    destination = output_dir / "manifest.parquet"
    files.write_parquet(
        destination,
        pa.table(columns),
        SCHEMA,
        dataset=entry.name,
        layout=entry.layout,
        image_root="." if packed else str(listing.image_root),
        content_hash=_content_hash(columns, listing),
    )
    return destination


def _content_hash(columns: dict[str, list[Any]], listing: Listing) -> str:
    digest = hashlib.sha256(files.canonical_json(columns).encode())
    if listing.pixels is not None:
        digest.update(str(listing.pixels.shape).encode())
        digest.update(np.ascontiguousarray(listing.pixels).data)
    else:
        assert listing.image_root is not None
        for path in columns["path"]:
            digest.update(files.sha256_file(listing.image_root / path).encode())
    return digest.hexdigest()
