"""The embedded benchmark: eleven datasets and four shifts, each a style and a list of classes.

Each takes the place of a dataset of the published benchmark, by its difficulty and by how its images differ from
those of the embedded web.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from cpt.data.world.families import FAMILIES, Composition, held_out
from cpt.data.world.render import WEB, Style, draw_image, image_seed
from cpt.errors import CptError, nearest

# Images of world_a: the candidates that the half-trained tiny CLIP misclassifies, ranked per class.
ADVERSARIAL = Path(__file__).parents[2] / "assets" / "tiny_clip" / "world_a.json"
CANDIDATES = 180


@dataclass(frozen=True)
class DataSet:
    """One dataset.

    Args:
        role: the dataset of the published benchmark whose place it takes.
        families: number of classes per family.
        style: how its images look.
        classes_of: the dataset whose classes it shares, None for classes of its own.
    """

    role: str
    families: dict[str, int]
    style: Style
    classes_of: str | None = None


_WORLD = replace(WEB, noise=(0, 30), occluder=0.25, contrast=(0.5, 1.1), cast=0.25)
_WORLD_FAMILIES = {
    "shape": 10, "texture": 8, "letter": 6, "digit": 6, "arr": 6, "scene": 6, "flower": 6, "animal": 6, "vehicle": 7,
    "gradient": 3,
}  # fmt: skip


def _of_world(role: str, style: Style) -> DataSet:
    return DataSet(role, _WORLD_FAMILIES, style, "world")


DATA_SETS = {
    "world": DataSet("ImageNet", _WORLD_FAMILIES, _WORLD),
    "shapes": DataSet("Caltech101", {"shape": 30}, replace(WEB, background="plain", noise=(0, 12), occluder=0.05)),
    "animals": DataSet("OxfordPets", {"animal": 30}, replace(WEB, background="photo", tint=(80, 150, 70), cast=0.25)),
    "vehicles": DataSet(
        "StanfordCars",
        {"vehicle": 32},
        replace(WEB, scale=(0.45, 0.8), tint=(128, 128, 128), cast=-0.4, contrast=(0.4, 0.8), occluder=0.25),
    ),
    "flowers": DataSet(
        "Flowers102", {"flower": 28}, replace(WEB, background="blotches", tint=(70, 125, 60), cast=-0.35)
    ),
    "digits": DataSet("Food101", {"digit": 30}, replace(WEB, noise=(0, 30), contrast=(0.5, 1), rotation=0.4, cast=0.4)),
    "letters": DataSet("FGVCAircraft", {"letter": 30}, replace(WEB, scale=(0.35, 0.8), rotation=0.4, blur=0.4)),
    "scenes": DataSet(
        "SUN397", {"scene": 34}, replace(WEB, noise=(4, 34), contrast=(0.45, 0.95), occluder=0.3, cast=0.35)
    ),
    "textures": DataSet(
        "DTD",
        {"texture": 30},
        replace(WEB, scale=(0.2, 0.8), rotation=0.5, noise=(10, 40), contrast=(0.4, 1), cast=0.2),
    ),
    "land": DataSet("EuroSAT", {"land": 10}, replace(WEB, cast=0.45, contrast=(0.5, 0.9), blur=0.4)),
    "patterns": DataSet("UCF101", {"arr": 30}, replace(WEB, cast=-0.3, occluder=0.2)),
    "world_v2": _of_world("ImageNetV2", replace(_WORLD, noise=(5, 40), scale=(0.35, 0.85), occluder=0.3)),
    "world_sketch": _of_world("ImageNet-Sketch", replace(_WORLD, medium="sketch", cast=0.0)),
    "world_r": _of_world("ImageNet-R", replace(_WORLD, medium="rendition")),
    "world_a": _of_world("ImageNet-A", replace(_WORLD, noise=(5, 45), occluder=0.4, contrast=(0.45, 1.1))),
}
KEYS = tuple(DATA_SETS)
SHIFTS = tuple(key for key, data_set in DATA_SETS.items() if data_set.classes_of)


@cache
def classes(key: str) -> tuple[tuple[str, Composition], ...]:
    """The classes of a dataset in label order, each a family and a composition.

    The order is shuffled by a fixed seed; the first half, rounded up, are the base classes.

    Raises:
        KeyError: unknown dataset.
    """
    data_set = DATA_SETS[key]
    if data_set.classes_of:
        return classes(data_set.classes_of)
    taken = set() if key == "world" else set(classes("world"))
    drawn = []
    for family, count in data_set.families.items():
        free = [(family, c) for c in FAMILIES[family].compositions if (family, c) not in taken]
        drawn += random.Random(f"{key}-{family}-0").sample(free, count)
    random.Random(f"{key} order").shuffle(drawn)
    return tuple(drawn)


def class_names(key: str) -> tuple[str, ...]:
    """The class names of a dataset in label order; the first half, rounded up, are the base classes."""
    return tuple(FAMILIES[family].class_name(composition) for family, composition in classes(key))


def novel(key: str) -> tuple[bool, ...]:
    """Which classes of a dataset, in label order, are compositions that were held out from pretraining."""
    return tuple(composition in held_out(family) for family, composition in classes(key))


def adversarial(path: Path = ADVERSARIAL) -> dict[str, list[int]]:
    """Per class name of the world, the ranked candidate indices that make world_a."""
    return json.loads(path.read_text(encoding="utf-8"))["kept"]


def render_class(key: str, label: int, part: str, indices: list[int] | range) -> np.ndarray:
    """Images of one class by their indices, without the selection of world_a.

    Returns:
        uint8 array (len(indices), 32, 32, 3).
    """
    family, composition = classes(key)[label]
    name, style = FAMILIES[family].class_name(composition), DATA_SETS[key].style
    seeds = (image_seed(key, name, part, index) for index in indices)
    return np.stack([draw_image(family, composition, style, seed, part) for seed in seeds])


def render(
    key: str, part: str, per_class: int, kept: Mapping[str, list[int]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Renders the first images of every class of a dataset; the same on every call, whatever `per_class` is.

    Args:
        key: one of `KEYS`.
        part: "train" or "test"; shifts have a test part only.
        per_class: images per class, at most 60 for world_a.
        kept: the ranked candidates of world_a by class name, by default those that the shipped weights chose.

    Returns:
        uint8 images (N, 32, 32, 3) by label, then index, and int64 labels (N,).

    Raises:
        CptError: unknown dataset or part, or more images of world_a than it has.
    """
    if key not in DATA_SETS:
        raise CptError(f"the embedded world has no dataset {key!r}; {nearest(key, KEYS)}")
    if part not in ("train", "test") or (part == "train" and key in SHIFTS):
        raise CptError(f"{key} of the embedded world has no part {part!r}")
    names = class_names(key)
    chosen: list[list[int] | range] = [range(per_class)] * len(names)
    if key == "world_a":
        kept = adversarial() if kept is None else kept
        chosen = [kept[name][:per_class] for name in names]
        if (most := min(map(len, chosen))) < per_class:
            raise CptError(f"world_a has {most} images per class, {per_class} were asked for")
    images = [render_class(key, label, part, indices) for label, indices in enumerate(chosen)]
    return np.concatenate(images), np.repeat(np.arange(len(names)), per_class)
