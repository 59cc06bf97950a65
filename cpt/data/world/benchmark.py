"""The datasets of the generated worlds: their classes and their images."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from cpt.data.world.render import draw_image, image_seed
from cpt.data.world.subject import Composition
from cpt.data.world.worlds import DATA_SETS, FAMILIES, held_out, world_of
from cpt.errors import CptError, nearest

# Images of world_a: the candidates that the half-trained tiny CLIP misclassifies, ranked per class.
ADVERSARIAL = Path(__file__).parents[2] / "assets" / "tiny_clip" / "world_a.json"
CANDIDATES = 180

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
    source = world_of(key).source
    taken = set() if key == source else set(classes(source))
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
    """Per class name of the first world, the ranked candidate indices that make world_a."""
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
        raise CptError(f"no generated world has a dataset {key!r}; {nearest(key, KEYS)}")
    if part not in ("train", "test") or (part == "train" and key in SHIFTS):
        raise CptError(f"{key} of the generated worlds has no part {part!r}")
    names = class_names(key)
    chosen: list[list[int] | range] = [range(per_class)] * len(names)
    if key == world_of(key).adversarial:
        kept = adversarial() if kept is None else kept
        chosen = [kept[name][:per_class] for name in names]
        if (most := min(map(len, chosen))) < per_class:
            raise CptError(f"world_a has {most} images per class, {per_class} were asked for")
    images = [render_class(key, label, part, indices) for label, indices in enumerate(chosen)]
    return np.concatenate(images), np.repeat(np.arange(len(names)), per_class)
