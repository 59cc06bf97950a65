"""Splits for datasets whose published split file cannot be had: the same counts and labels, other images.

The published files were made with an unseeded shuffle, so they cannot be made again; what these give is deterministic
and not comparable with published numbers. Rules of repo KaiyangZhou/CoOp, datasets/dtd.py (``read_and_split_data``: all
images of a class are cut 50/20/30) and datasets/oxford_pets.py (``split_trainval``: a fifth of the official training
images of a class becomes validation, the official test images stay), with Python's rounding.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cpt.data.entry import Derive
from cpt.data.layouts.listing import Listing, class_folders, label_classes
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
    try:
        rule, test = _rule(entry).rule, None
        if rule == "folders":
            names, pool = _folders(entry)
        else:
            pool = _pools(entry, rule, "train")
            test = None if rule == "flowers" else _pools(entry, rule, "test")
            names = _names(entry, pool)
    except (KeyError, ValueError, IndexError) as error:
        raise CptError(
            f"{entry.name}: the lists in {entry.folder} for the derived split make no sense "
            f"({type(error).__name__}: {error}); get them from the dataset's own archive"
        ) from None
    return Listing(names, cut(pool, test), image_root=entry.folder / entry.images, derived=True)


def cut(pool: Pools, test: Pools | None = None) -> list[tuple[str, int, str]]:
    """Return (part, label, path) of images, part by part.

    Args:
        pool: images to cut: 50 % training, 20 % validation, 30 % test; with ``test``, 80 % training, 20 % validation.
        test: the test images, where they are known.
    """
    generator = random.Random(1)
    parts: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    for label in sorted(pool):
        paths = sorted(pool[label])
        generator.shuffle(paths)
        held, train = round(0.2 * len(paths)), round(0.5 * len(paths))
        if test is None:
            chosen = {"train": paths[:train], "val": paths[train : train + held], "test": paths[train + held :]}
        else:
            chosen = {"val": paths[:held], "train": paths[held:], "test": sorted(test.get(label, []))}
        for part, own in chosen.items():
            parts[part] += [(part, label, path) for path in own]
    return [image for part in parts.values() for image in part]


def _rule(entry: Entry) -> Derive:
    return entry.derive or Derive.model_validate({"rule": "folders"})


def _folders(entry: Entry) -> tuple[list[str], Pools]:
    """Every folder of images is a class; the label order is that of the original folder names."""
    how, root = _rule(entry), entry.folder / entry.images
    if not root.is_dir():
        how_to = f"get it with `cpt data fetch {entry.name}`" if entry.files else "put the class folders there"
        raise CptError(f"{entry.name}: {root} is missing; {how_to}")
    found = {name: files for name, files in class_folders(root).items() if name not in how.drop}
    if empty := [name for name, files in found.items() if not files]:
        raise CptError(f"{entry.name}: class folder {root / empty[0]} has no image; add some or delete the folder")
    label = {folder: number for number, folder in enumerate(found)}
    names = [how.rename.get(folder, folder) for folder in found]
    if entry.layout == "folders" and entry.class_names is not None:  # a dataset of one's own
        label, names = label_classes(entry, list(found), "class folder", root)
    elif entry.class_names is not None and names != entry.class_names:
        raise CptError(f"{entry.name}: the class folders of {root} are not those of class_names; fix one of them")
    return names, {label[folder]: [f"{folder}/{file}" for file in files] for folder, files in found.items()}


def _flowers(entry: Entry, part: str) -> Iterator[tuple[int, str]]:
    for number, label in enumerate(_mat(entry, "imagelabels.mat")["labels"].ravel().tolist(), 1):
        yield label - 1, f"image_{number:05d}.jpg"


def _pets(entry: Entry, part: str) -> Iterator[tuple[int, str]]:
    for line in _lines(entry, f"annotations/{'trainval' if part == 'train' else part}.txt"):
        image, number, *_ = line.split()
        yield int(number) - 1, f"{image}.jpg"


def _cars(entry: Entry, part: str) -> Iterator[tuple[int, str]]:
    file = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}[part]
    for item in _mat(entry, file)["annotations"].ravel():
        yield int(item["class"].item()) - 1, f"cars_{part}/{item['fname'].item()}"


def _sun397(entry: Entry, part: str) -> Iterator[tuple[int, str]]:
    label = {line.strip("/"): i for i, line in enumerate(_lines(entry, "ClassName.txt"))}
    for line in _lines(entry, f"{part.title()}ing_01.txt"):
        path = line.strip("/")
        yield label[path.rpartition("/")[0]], path


def _ucf101(entry: Entry, part: str) -> Iterator[tuple[int, str]]:
    label = {name: int(number) - 1 for number, name in map(str.split, _lines(entry, "ucfTrainTestlist/classInd.txt"))}
    for line in _lines(entry, f"ucfTrainTestlist/{part}list01.txt"):
        action, _, video = line.split()[0].partition("/")
        folder = "_".join(re.findall("[A-Z][^A-Z]*", action))
        yield label[action], f"{folder}/{video.removesuffix('.avi')}.jpg"


_LISTS: dict[str, Callable[[Entry, str], Iterator[tuple[int, str]]]] = {
    "flowers": _flowers,
    "pets": _pets,
    "cars": _cars,
    "sun397": _sun397,
    "ucf101": _ucf101,
}
"""(label, path) of the official training or test images; of Flowers102, of all images."""
RULES = ("folders", *_LISTS)


def _pools(entry: Entry, rule: str, part: str) -> Pools:
    pool: Pools = {}
    for label, path in _LISTS[rule](entry, part):
        pool.setdefault(label, []).append(path)
    return pool


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
    damaged = f"cannot be read ({' '.join(str(error).split())})"
    reason = "is missing" if isinstance(error, FileNotFoundError) else damaged
    fix = "the derived split needs it, get it from the dataset's own archive"
    return CptError(f"{entry.name}: {entry.folder / file} {reason}; {fix}")
