"""Which classes belong to which half, and which to the head, middle and tail of a long tail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpt.errors import CptError, nearest

PROTOCOLS = ("base_to_new", "all_classes", "few_shot")
SUBSETS = ("base", "new", "all")
GROUPS = ("head", "medium", "tail")
THIRDS = (1.0, 1.0, 1.0)
"""Sizes of head, medium and tail relative to each other, unless an experiment chooses others."""


MANY, FEW = 100, 20
"""Training images above which a class is one of many, and below which one of few (Liu et al., CVPR 2019)."""


def shot_groups(counts: ArrayLike) -> NDArray[np.str_]:
    """Return ``many`` (> 100), ``medium`` (20 to 100) or ``few`` (< 20) for every class by its training images."""
    images = np.asarray(counts, dtype=np.int64)
    return np.select([images > MANY, images < FEW], ["many", "few"], "medium")


def subset_labels(labels: ArrayLike, subset: str) -> NDArray[np.int64]:
    """Return the labels of one half of the classes, ascending.

    The distinct labels are sorted; the first ceil(n/2) are base, the rest new. Labels may have gaps: the cut
    counts classes, not label values. Source: repo KaiyangZhou/CoOp, datasets/oxford_pets.py (``subsample_classes``).

    Args:
        labels: labels of classes or of images, any shape.
        subset: ``base``, ``new`` or ``all``.

    Raises:
        CptError: unknown subset.
    """
    if subset not in SUBSETS:
        raise CptError(f"subset: unknown {subset!r}; {nearest(subset, SUBSETS)}")
    present = np.unique(np.asarray(labels, dtype=np.int64))
    middle = (len(present) + 1) // 2
    return {"base": present[:middle], "new": present[middle:], "all": present}[subset]


def trained_rows(classes: int, protocol: str) -> range:
    """Return the rows, in label order, of the classes that a protocol trains on: the base half or all.

    Raises:
        CptError: unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise CptError(f"protocol: unknown {protocol!r}; {nearest(protocol, PROTOCOLS)}")
    return range((classes + 1) // 2 if protocol == "base_to_new" else classes)


def reindex(labels: ArrayLike, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position of every label in ``kept`` (ascending labels), -1 where it is not among them."""
    values = np.asarray(labels, dtype=np.int64)
    if len(kept) == 0:
        return np.full_like(values, -1)
    position = np.searchsorted(kept, values).clip(max=len(kept) - 1)
    return np.where(kept[position] == values, position, -1)


def parse_groups(text: str) -> dict[str, float]:
    """Return the sizes of head, medium and tail that ``1:1:1`` tells.

    Raises:
        CptError: not three positive numbers.
    """
    try:
        sizes = [float(part) for part in text.split(":")]
    except ValueError:
        sizes = []
    if len(sizes) != len(GROUPS) or not all(0 < size < float("inf") for size in sizes):
        raise CptError(f"--class-groups {text}: must be three positive numbers, for example 1:1:1")
    return dict(zip(GROUPS, sizes, strict=True))


def head_medium_tail(ranks: ArrayLike, shares: Sequence[float] = THIRDS) -> NDArray[np.str_]:
    """Return the group of every trained class: parts of the class ranking.

    Parts that are no whole number of classes are rounded down, and the classes over go to the groups with the largest
    rest, earlier ones first: thirds of 11 classes are 4, 4 and 3.

    Args:
        ranks: (K,) rank of every class, a permutation of 0..K-1 where 0 has the most training images.
        shares: sizes of head, medium and tail relative to each other.

    Returns:
        (K,) array of ``head``, ``medium`` or ``tail``.
    """
    rank = np.asarray(ranks, dtype=np.int64)
    exact = len(rank) * np.asarray(shares, dtype=np.float64) / sum(shares)
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    largest_rest = np.argsort(np.round(sizes - exact, 9), kind="stable")
    sizes[largest_rest[: len(rank) - sizes.sum()]] += 1
    return np.repeat(GROUPS, sizes)[rank]
