"""Splits for datasets whose published split file cannot be had: the same counts and labels, other images.

The published files were made with an unseeded shuffle, so they cannot be made again; what these give is deterministic
and not comparable with published numbers. Rules of repo KaiyangZhou/CoOp, datasets/dtd.py (``read_and_split_data``: all
images of a class are cut 50/20/30) and datasets/oxford_pets.py (``split_trainval``: a fifth of the official training
images of a class becomes validation, the official test images stay), with Python's rounding.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.data.layouts.listing import Listing, class_folders
from cpt.errors import CptError

if TYPE_CHECKING:
    from cpt.data.entry import Entry

Pools = dict[int, list[str]]
"""Label -> paths of its images below the image root."""


def derive(entry: Entry) -> Listing:
    """Return the images of a dataset under a split that its rule makes.

    Raises:
        CptError: a file that the rule reads is missing or damaged, or the classes are not those of the catalog.
    """
    assert entry.derive is not None
    try:
        names, pool, test = RULES[entry.derive.rule](entry)
    except (KeyError, ValueError, IndexError) as error:
        raise CptError(
            f"{entry.name}: the lists in {entry.folder} for the derived split make no sense "
            f"({type(error).__name__}: {error}); get them from the dataset's own archive"
        ) from None
    generator = random.Random(1)
    parts: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    for label in sorted(pool):
        paths = sorted(pool[label])
        generator.shuffle(paths)
        held, train = round(0.2 * len(paths)), round(0.5 * len(paths))
        if test is None:
            cut = {"train": paths[:train], "val": paths[train : train + held], "test": paths[train + held :]}
        else:
            cut = {"val": paths[:held], "train": paths[held:], "test": sorted(test.get(label, []))}
        for part, chosen in cut.items():
            parts[part] += [(part, label, path) for path in chosen]
    images = [image for part in parts.values() for image in part]
    return Listing(names, images, image_root=entry.folder / entry.images, derived=True)


def _folders(entry: Entry) -> tuple[list[str], Pools, None]:
    """Every folder of images is a class; the label order is that of the original folder names."""
    assert entry.derive is not None
    root = entry.folder / entry.images
    if not root.is_dir():
        raise CptError(f"{entry.name}: {root} is missing; get it with `cpt data fetch {entry.name}`")
    found = {name: files for name, files in class_folders(root).items() if name not in entry.derive.drop}
    names = [entry.derive.rename.get(folder, folder) for folder in found]
    if entry.class_names is not None and names != entry.class_names:
        raise CptError(f"{entry.name}: the class folders of {root} are not those of class_names; fix one of them")
    pool = {label: [f"{folder}/{file}" for file in files] for label, (folder, files) in enumerate(found.items())}
    return names, pool, None


def _flowers(entry: Entry) -> tuple[list[str], Pools, None]:
    labels = _mat(entry, "imagelabels.mat")["labels"].ravel().tolist()
    pool: Pools = {}
    for number, label in enumerate(labels, 1):
        pool.setdefault(label - 1, []).append(f"image_{number:05d}.jpg")
    return _names(entry, pool), pool, None


def _pets(entry: Entry) -> tuple[list[str], Pools, Pools]:
    parts = []
    for part in ("trainval", "test"):
        pool: Pools = {}
        for line in _lines(entry, f"annotations/{part}.txt"):
            image, number, *_ = line.split()
            pool.setdefault(int(number) - 1, []).append(f"{image}.jpg")
        parts.append(pool)
    return _names(entry, parts[0]), parts[0], parts[1]


def _cars(entry: Entry) -> tuple[list[str], Pools, Pools]:
    parts = []
    for folder, file in (
        ("cars_train", "devkit/cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        pool: Pools = {}
        for item in _mat(entry, file)["annotations"].ravel():
            pool.setdefault(int(item["class"].item()) - 1, []).append(f"{folder}/{item['fname'].item()}")
        parts.append(pool)
    return _names(entry, parts[0]), parts[0], parts[1]


def _sun397(entry: Entry) -> tuple[list[str], Pools, Pools]:
    label = {line.strip("/"): i for i, line in enumerate(_lines(entry, "ClassName.txt"))}
    parts = []
    for part in ("Training", "Testing"):
        pool: Pools = {}
        for line in _lines(entry, f"{part}_01.txt"):
            path = line.strip("/")
            pool.setdefault(label[path.rpartition("/")[0]], []).append(path)
        parts.append(pool)
    return _names(entry, parts[0]), parts[0], parts[1]


def _ucf101(entry: Entry) -> tuple[list[str], Pools, Pools]:
    label = {name: int(number) - 1 for number, name in map(str.split, _lines(entry, "ucfTrainTestlist/classInd.txt"))}
    parts = []
    for part in ("train", "test"):
        pool: Pools = {}
        for line in _lines(entry, f"ucfTrainTestlist/{part}list01.txt"):
            action, _, video = line.split()[0].partition("/")
            folder = "_".join(re.findall("[A-Z][^A-Z]*", action))
            pool.setdefault(label[action], []).append(f"{folder}/{video.removesuffix('.avi')}.jpg")
        parts.append(pool)
    return _names(entry, parts[0]), parts[0], parts[1]


RULES: dict[str, Callable[[Entry], tuple[list[str], Pools, Pools | None]]] = {
    "folders": _folders,
    "flowers": _flowers,
    "pets": _pets,
    "cars": _cars,
    "sun397": _sun397,
    "ucf101": _ucf101,
}


def _names(entry: Entry, pool: Pools) -> list[str]:
    names = entry.class_names
    if not isinstance(names, list) or sorted(pool) != list(range(len(names))):
        raise CptError(f"{entry.name}: {len(pool)} classes found, class_names does not name them; fix class_names")
    return names


def _lines(entry: Entry, file: str) -> Sequence[str]:
    try:
        lines = (entry.folder / file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(entry, file, error) from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _mat(entry: Entry, file: str) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        with open(entry.folder / file, "rb") as stream:
            return loadmat(stream)
    except Exception as error:  # scipy raises anything on damaged bytes
        raise _unreadable(entry, file, error) from None


def _unreadable(entry: Entry, file: str, error: Exception) -> CptError:
    path: Path = entry.folder / file
    reason = (
        "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({' '.join(str(error).split())})"
    )
    return CptError(f"{entry.name}: {path} {reason}; the derived split needs it, get it from the dataset's own archive")
