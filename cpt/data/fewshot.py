"""Few-shot sampling that reproduces the published lists exactly.

The rule is that of repo KaiyangZhou/Dassl.pytorch, dassl/data/datasets/base_dataset.py
(``generate_fewshot_dataset``) as called by repo KaiyangZhou/CoOp, datasets/oxford_pets.py: Python's generator is
seeded once with the run's seed; classes are walked in order of first appearance in the list.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import ArrayLike, NDArray


def by_class(labels: ArrayLike) -> dict[int, NDArray[np.int64]]:
    """Return label -> positions (ascending) of its items, classes in order of first appearance."""
    values = np.asarray(labels, dtype=np.int64)
    present, first, sizes = np.unique(values, return_index=True, return_counts=True)
    positions = np.split(np.argsort(values, kind="stable"), np.cumsum(sizes)[:-1])
    return {int(present[i]): positions[i] for i in np.argsort(first)}


def sample_shots(labels: ArrayLike, shots: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of at most ``shots`` items of every class.

    A class with fewer items than ``shots`` is taken whole, in order, without use of randomness.

    Args:
        labels: (N,) labels in list order; the result depends on this order.
        shots: items per class, at least 1.
        seed: the run's seed.

    Returns:
        positions in the order of the published lists: class by class, inside a class in drawing order.
    """
    generator = random.Random(seed)
    drawn: list[int] = []
    for positions in by_class(labels).values():
        items = positions.tolist()
        drawn += generator.sample(items, shots) if len(items) >= shots else items
    return np.array(drawn, dtype=np.int64)
