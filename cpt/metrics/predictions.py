"""Measures of stored predictions: computed and named here (``MEASURES``), shown by ``cpt.metrics.reported``.

They are accuracy and calibration; no model is needed. Letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

BINS = 15


def accuracy(labels: NDArray, predicted: NDArray) -> float:
    """Micro top-1 accuracy in percent."""
    return 100.0 * float((labels == predicted).mean())


def macro_accuracy(labels: NDArray, predicted: NDArray) -> float:
    """Mean of the per-class accuracies in percent, without classes that have no images."""
    correct = labels == predicted
    return 100.0 * float(np.mean([correct[labels == k].mean() for k in np.unique(labels)]))


def group_accuracy(labels: NDArray, predicted: NDArray, members: NDArray) -> float | None:
    """Accuracy in percent over the images of some classes; None if there are no images."""
    chosen = np.isin(labels, members)
    return accuracy(labels[chosen], predicted[chosen]) if chosen.any() else None


def confusion(
    labels: NDArray, predicted: NDArray, groups: NDArray, clusters: NDArray, group: str, other: str
) -> float | None:
    """Percentage of one group's images that were classified as a class of another group in the same cluster.

    Only images whose cluster holds a class of the other group count; None if there are none.

    Args:
        labels: (N,) classes 0..K-1.
        predicted: (N,) predicted classes.
        groups: (K,) group of every class.
        clusters: (K,) cluster of every class.
        group: name of the images' group.
        other: name of the other group.
    """
    could = np.isin(clusters, clusters[groups == other]) & (groups == group)
    chosen = could[labels]
    if not chosen.any():
        return None
    own, taken = labels[chosen], predicted[chosen]
    return 100.0 * float(((groups[taken] == other) & (clusters[taken] == clusters[own])).mean())


def bins(confidence: NDArray) -> NDArray:
    """Bin 0..14 of every top-1 probability (N,): 15 bins of equal width; the last one includes 1."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(confidence: NDArray, correct: NDArray) -> float:
    """Expected calibration error in percent: 15 bins of equal width on the top-1 probability (Guo et al. 2017)."""
    found = bins(confidence)
    gaps = [
        abs(float(confidence[found == b].mean()) - float(correct[found == b].mean())) * (found == b).sum()
        for b in np.unique(found)
    ]
    return 100.0 * float(sum(gaps)) / len(confidence)


def log_loss(true_score: NDArray) -> float:
    """Mean negative log probability of the true class, in nats; probabilities below 1e-12 count as 1e-12."""
    return float(-np.log(np.maximum(true_score.astype(np.float64), 1e-12)).mean())


def harmonic_mean(base: float, new: float) -> float:
    """2BN/(B+N) of base and new accuracy; 0 when both are 0."""
    return float(harmonic_means(np.float64(base), np.float64(new)))


def harmonic_means(base: NDArray | np.float64, new: NDArray | np.float64) -> NDArray:
    """Element-wise ``harmonic_mean``."""
    total = base + new
    return np.asarray(2 * base * new / np.where(total == 0, 1.0, total))


# ---- by name -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """What is known of the test images of one target and subset.

    The file holds the five largest probabilities (``cpt.evaluation.predict.TOP``) and that of the true class.

    Attributes:
        labels: (N,) classes 0..K-1.
        top: (N,) predicted classes.
        confidence: (N,) probabilities of the predicted classes.
        true_score: (N,) probabilities of the true classes.
        groups: (K,) ``head``, ``medium`` or ``tail``; None where the classes are not the trained ones, or not ranked.
        clusters: (K,) cluster of every class; None where the classes are not the trained ones, or not clustered.
        shots: (K,) ``many``, ``medium`` or ``few``; None where the classes are not the trained ones, or their training
            images not all that there are.
    """

    labels: NDArray
    top: NDArray
    confidence: NDArray
    true_score: NDArray
    groups: NDArray | None = None
    clusters: NDArray | None = None
    shots: NDArray | None = None


def _of_group(group: str, known: Predictions) -> float | None:
    return _of(known.groups, group, known)


def _of_shots(group: str, known: Predictions) -> float | None:
    return _of(known.shots, group, known)


def _of(groups: NDArray | None, group: str, known: Predictions) -> float | None:
    if groups is None:
        return None
    return group_accuracy(known.labels, known.top, np.flatnonzero(groups == group))


def _taken_for(group: str, other: str, known: Predictions) -> float | None:
    if known.groups is None or known.clusters is None:
        return None
    return confusion(known.labels, known.top, known.groups, known.clusters, group, other)


MEASURES: dict[str, tuple[str, Callable[[Predictions], float | None]]] = {
    "accuracy": ("percent", lambda known: accuracy(known.labels, known.top)),
    "macro_accuracy": ("percent", lambda known: macro_accuracy(known.labels, known.top)),
    "calibration_error": ("percent", lambda known: calibration_error(known.confidence, known.labels == known.top)),
    "head_accuracy": ("percent", partial(_of_group, "head")),
    "medium_accuracy": ("percent", partial(_of_group, "medium")),
    "tail_accuracy": ("percent", partial(_of_group, "tail")),
    "many_shot_accuracy": ("percent", partial(_of_shots, "many")),
    "medium_shot_accuracy": ("percent", partial(_of_shots, "medium")),
    "few_shot_accuracy": ("percent", partial(_of_shots, "few")),
    "tail_as_head": ("percent", partial(_taken_for, "tail", "head")),
    "head_as_tail": ("percent", partial(_taken_for, "head", "tail")),
    "log_loss": ("nats", lambda known: log_loss(known.true_score)),
}
"""Unit and function of what ``cpt score`` writes; one that gives None is left out there."""
