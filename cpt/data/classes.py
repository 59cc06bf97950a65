"""Which classes belong to which half, and which to the head, middle and tail of a long tail."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpt.errors import CptError, nearest

SUBSETS = ("base", "new", "all")
GROUPS = ("head", "medium", "tail")


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
    """Return the rows, in label order, of the classes that a protocol trains on: the base half or all."""
    return range((classes + 1) // 2 if protocol == "base_to_new" else classes)


def reindex(labels: ArrayLike, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position of every label in ``kept`` (ascending labels), -1 where it is not among them."""
    values = np.asarray(labels, dtype=np.int64)
    if len(kept) == 0:
        return np.full_like(values, -1)
    position = np.searchsorted(kept, values).clip(max=len(kept) - 1)
    return np.where(kept[position] == values, position, -1)


def head_medium_tail(ranks: ArrayLike) -> NDArray[np.str_]:
    """Return the group of every trained class: thirds of the class ranking.

    When K is no multiple of 3, one class over makes the head longer and two make the head and the medium longer
    (as ``numpy.array_split``), so the tail holds floor(K/3) classes.

    Args:
        ranks: (K,) rank of every class, a permutation of 0..K-1 where 0 has the most training images.

    Returns:
        (K,) array of ``head``, ``medium`` or ``tail``.
    """
    rank = np.asarray(ranks, dtype=np.int64)
    thirds = np.array_split(np.arange(len(rank)), 3)
    return np.repeat(GROUPS, [len(third) for third in thirds])[rank]
