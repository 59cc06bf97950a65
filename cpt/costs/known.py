"""What is known of datasets before they are there: sizes that the catalog names, or those of their manifests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cpt.data.classes import trained_rows
from cpt.data.entry import OWN, Entry
from cpt.data.fewshot import by_class
from cpt.data.longtail import class_ranks, tail_counts
from cpt.data.make_manifest import LAYOUTS
from cpt.data.manifest import PARTS, read_manifest
from cpt.errors import CptError
from cpt.experiment.config import Config
from cpt.files.paths import NATURAL, Ratio
from cpt.training.batches import epoch_order


@dataclass(frozen=True)
class Known:
    """What is known of a dataset.

    Attributes:
        classes: number of its classes; None if unknown.
        images: part: number of images, as far as known.
        pool: (label, training images) of every class in the order of first appearance; None if unknown.
    """

    classes: int | None
    images: dict[str, int]
    pool: list[tuple[int, int]] | None = None


def known(entry: Entry, manifest: Path) -> Known:
    """Return what is known of a dataset: from its manifest, else what the catalog or its own folder says."""
    if manifest.is_file():
        read = read_manifest(manifest)
        images = {part: len(read.rows(part)) for part in PARTS}
        return Known(len(read.class_names), images, _pool(read.label[read.rows("train")]))
    if entry.layout == "embedded":
        from cpt.data import world

        key = entry.key or entry.name
        count = len(world.class_names(key)) if key in world.KEYS else 0
        each = entry.per_class.model_dump() if entry.shift_of is None else {"test": entry.per_class.test}
        pool = [(label, entry.per_class.train) for label in range(count)] if entry.shift_of is None else None
        return Known(count or None, {part: count * number for part, number in each.items()}, pool)
    expected = entry.expected
    if expected is None and entry.layout in OWN:
        try:
            listing = LAYOUTS[entry.layout](entry)
        except CptError:
            return Known(None, {})
        in_part = {part: [label for where, label, _ in listing.images if where == part] for part in PARTS}
        images = {part: len(labels) for part, labels in in_part.items()}
        return Known(len(listing.class_names), images, _pool(in_part["train"]))
    named = len(entry.class_names) if isinstance(entry.class_names, list | dict) else None
    return Known(expected.classes if expected else named, expected.images if expected else {})


def _pool(labels: Any) -> list[tuple[int, int]]:
    return [(label, len(positions)) for label, positions in by_class(labels).items()]


def training_images(config: Config, dataset: Known, protocol: str, ratio: Ratio, seed: int) -> int | None:
    """Return how many images ``cpt.data.split.make_split`` chooses; None if the number of classes is unknown.

    Where the sizes of the classes are unknown they are taken to be at least n_max, so it is the most that it can be.
    """
    if dataset.classes is None:
        return None
    rows = trained_rows(dataset.classes, protocol)
    if ratio == NATURAL:
        if dataset.pool:
            return sum(count for label, count in dataset.pool if label in rows)
        return dataset.images.get("train") if len(rows) == dataset.classes else None
    wanted = tail_counts(len(rows), config.n_max, ratio)
    sizes = {label: min(count, config.n_max) for label, count in dataset.pool or [] if label in rows}
    if len(sizes) < len(rows):
        return int(wanted.sum())
    shots = np.repeat(list(sizes), list(sizes.values()))  # class by class, as the shots are drawn
    ranks = class_ranks(shots, config.class_order, seed)
    return int(np.minimum(wanted[ranks], [sizes[label] for label in rows]).sum())


@cache
def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of batches of an epoch over so many images."""
    return len(epoch_order(images, batch_size, 0, 0))
