"""The exponential long tail: n_k = n_max τ^((k-1)/(K-1)) images for the class of rank k.

The exponent and the truncation are those of repo shijxcs/Candle, datasets/oxford_pets.py. Unlike there, the kept
sets are nested: with one seed, the images at a small τ are among the images at every larger τ, so that runs at
different τ differ in the length of the tail and not in the luck of the draw.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpt.data.fewshot import by_class
from cpt.errors import CptError, nearest
from cpt.files.paths import NATURAL, Ratio
from cpt.seeds import numpy_stream

CLASS_ORDERS = ("label", "random", "appearance")


def parse_ratio(text: str) -> Ratio:
    """Return the ratio that ``0.06`` or ``natural`` tells.

    Raises:
        CptError: neither a number nor ``natural``.
    """
    if text == NATURAL:
        return NATURAL
    try:
        return float(text)
    except ValueError:
        raise CptError(f"--ratio {text}: must be a number in (0, 1], for example 0.06, or {NATURAL}") from None


class LongTail(NamedTuple):
    """What a long tail keeps.

    Attributes:
        kept: ascending positions of the kept items.
        ranks: (K,) rank of every class, classes in ascending label order; 0 is the head.
        counts: (K,) number of kept items of every class, classes in ascending label order.
    """

    kept: NDArray[np.int64]
    ranks: NDArray[np.int64]
    counts: NDArray[np.int64]


def tail_counts(classes: int, n_max: int, imbalance_ratio: float) -> NDArray[np.int64]:
    """Return the (K,) number of images by rank: floor(n_max τ^(rank/(K-1)) + 1e-9), at least 1.

    The tiny addition keeps exact values exact (16 · 0.25 is 4, not 3). A single class has n_max images.

    Raises:
        CptError: τ outside (0, 1] or n_max below 1.
    """
    if not 0 < imbalance_ratio <= 1:
        raise CptError(f"imbalance_ratio: {imbalance_ratio} is outside (0, 1]; 1 is balanced, 0.06 a long tail")
    if n_max < 1:
        raise CptError(f"n_max: {n_max} is below 1; give the images of the largest class, for example 16")
    exponent = np.arange(classes) / max(classes - 1, 1)
    return np.maximum(np.floor(n_max * imbalance_ratio**exponent + 1e-9), 1).astype(np.int64)


def class_ranks(labels: ArrayLike, order: str, seed: int) -> NDArray[np.int64]:
    """Return the (K,) rank of every class, classes in ascending label order.

    Args:
        labels: (N,) labels of the training items in list order.
        order: ``label`` ranks by ascending label; ``random`` by a permutation that depends on the seed;
            ``appearance`` by descending class size, ties by first appearance in the list (the reference codes).
        seed: the run's seed; used by ``random`` only.

    Raises:
        CptError: unknown order.
    """
    classes = by_class(labels)
    if order == "label":
        return np.arange(len(classes))
    if order == "random":
        return numpy_stream(seed, "class order").permutation(len(classes))
    if order == "appearance":
        ranking = sorted(classes, key=lambda label: -len(classes[label]))  # a stable sort keeps ties in order
        return np.argsort(ranking)
    raise CptError(f"class_order: unknown {order!r}; {nearest(order, CLASS_ORDERS)}")


def natural(labels: ArrayLike) -> LongTail:
    """Keep all items: the long tail that is there, ranked by class size.

    Args:
        labels: (N,) labels of the training items.
    """
    values = np.asarray(labels, dtype=np.int64)
    counts = np.unique(values, return_counts=True)[1]
    return LongTail(np.arange(len(values)), class_ranks(values, "appearance", 0), counts)


def long_tail(labels: ArrayLike, n_max: int, imbalance_ratio: float, seed: int, order: str = "label") -> LongTail:
    """Keep the first n_k items of a seeded permutation of every class.

    The permutation depends on the seed and the label alone, not on τ or on the order of the classes. A class with
    fewer than n_k items is kept whole.

    Args:
        labels: (N,) labels of the training items.
        n_max: images of the class of rank 0.
        imbalance_ratio: τ in (0, 1], the share of n_max that the last class keeps.
        seed: the run's seed.
        order: see ``class_ranks``.

    Raises:
        CptError: τ, n_max or order impossible.
    """
    classes = by_class(labels)
    ranks = class_ranks(labels, order, seed)
    wanted = tail_counts(len(classes), n_max, imbalance_ratio)[ranks]
    kept = [
        numpy_stream(seed, "long tail", label).permutation(classes[label])[:count]
        for label, count in zip(sorted(classes), wanted, strict=True)
    ]
    counts = np.array([len(items) for items in kept], dtype=np.int64)
    return LongTail(np.sort(np.concatenate(kept)), ranks, counts)
