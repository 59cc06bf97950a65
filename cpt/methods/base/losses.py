"""Losses of prompt tuning as functions of features.

Letters: B images, K classes, D joint width, M clusters, k_m classes of cluster m. Features called *unit* have norm 1.
Equation numbers are those of the CPT paper (arXiv 2605.11939).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

Function = TypeVar("Function", bound=Callable)


def kept(function: Function) -> Function:
    """Compute once for a tensor (the first argument), and keep the result as long as the tensor lives.

    A CUDA graph reads constants where they were when it was captured, so none may go before what it was made from.
    """
    found: Any = WeakTensorKeyDictionary()

    @wraps(function)
    def once(tensor: Tensor, *others: Any) -> Any:
        results = found.setdefault(tensor, {})
        if others not in results:
            results[others] = function(tensor, *others)
        return results[others]

    return cast("Function", once)


def in_batch_contrast(unit_image: Tensor, unit_text: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Eq. 1 as printed: contrast of each image's text with all images of the batch, summed over the batch.

    Args:
        unit_image: (B, D). unit_text: (K, D). labels: (B,). scale: inverse temperature.
    """
    similarity = scale * rows(unit_text, labels) @ unit_image.T  # (B, B)
    return F.cross_entropy(similarity, positions(len(labels), labels.device), reduction="sum")


def cluster_separation(
    unit_text: Tensor,
    clusters: Tensor,
    reading: str = "pairs",
    *,
    by_size: bool = False,
) -> Tensor:
    """L_TETF, Eq. 6-9: pull every cluster's text features towards a simplex ETF of its size.

    For each cluster, the squared distance of the off-diagonal cosines from -1/(k_m - 1); then the mean over clusters.
    Clusters of one class have no pairs and are left out of sum and mean.

    Args:
        unit_text: (K, D) unit text features.
        clusters: (K,) cluster of every class.
        reading: ``sum`` is the squared Frobenius norm as printed, without the diagonal's constant k_m; ``pairs``
            divides it by the k_m (k_m - 1) off-diagonal entries; ``entries`` by all k_m² entries.
        by_size: weight clusters by their size instead of 1/M.
    """
    target, weight = _separation(clusters, reading, by_size)
    return ((unit_text @ unit_text.T - target).square() * weight).sum()


@kept
def _separation(clusters: Tensor, reading: str, by_size: bool) -> tuple[Tensor, Tensor]:
    """Cosines (K, 1) that the pairs of a cluster should have, and weights (K, K) of the pairs; made once a training."""
    same = clusters.unsqueeze(0) == clusters.unsqueeze(1)
    size = same.sum(dim=1)  # (K,) size of each class's cluster
    pairs = same & ~torch.eye(len(clusters), dtype=torch.bool, device=clusters.device)
    used = (size >= 2).float()
    divisor = {"sum": torch.ones_like(size), "pairs": size * (size - 1), "entries": size.square()}[reading]
    each = used / divisor.clamp(min=1)
    each = each * size / used.sum().clamp(min=1) if by_size else each / (used / size).sum().clamp(min=1e-30)
    return (-1.0 / (size - 1).clamp(min=1)).unsqueeze(1), pairs * each.unsqueeze(1)


def simplex_distance(unit_text: Tensor) -> Tensor:
    """Mean squared distance of the cosines between (K, D) unit features to -1/(K - 1): one cluster of all classes."""
    return cluster_separation(unit_text, _zeros(len(unit_text), unit_text.device))


def class_consistency(
    unit_image: Tensor, unit_text: Tensor, labels: Tensor, reading: str = "present", *,
    counts: Tensor | None = None, detach_text: bool = False,
) -> Tensor:  # fmt: skip
    """L_CC, Eq. 10: squared distance of images from the text feature of their class, averaged by class.

    Args:
        unit_image: (B, D). unit_text: (K, D). labels: (B,).
        reading: estimate from a batch. ``present``: mean of the class means over the classes in the batch;
            ``importance``: every image weighted by N/(K N_c), unbiased for Eq. 10; needs ``counts`` (K,).
        detach_text: stop the gradient into the text features.
    """
    text = unit_text.detach() if detach_text else unit_text
    distance = (unit_image - rows(text, labels)).square().sum(dim=1)  # (B,)
    if reading == "importance":
        assert counts is not None, "the importance reading needs the classes' counts"
        weight = counts.sum() / (len(counts) * counts[labels])
        return (weight * distance).mean()
    share = 1 / (labels.unsqueeze(0) == labels.unsqueeze(1)).sum(dim=1)  # (B,) of an image in its class in the batch
    return (distance * share).sum() / share.sum()


def rows(features: Tensor, labels: Tensor) -> Tensor:
    """Rows (B, D) of features (K, D) as a matrix product, whose gradient is one too: a sum over an index would sort."""
    return (labels.unsqueeze(1) == positions(len(features), labels.device)).to(features.dtype) @ features


@cache
def positions(count: int, device: torch.device) -> Tensor:
    """0, 1, … count - 1 on a device, made once."""
    return torch.arange(count, device=device)


@cache
def _zeros(count: int, device: torch.device) -> Tensor:
    return torch.zeros(count, dtype=torch.long, device=device)


def anchor(text: Tensor, frozen: Tensor, reading: str = "sum") -> Tensor:
    """L_RS, Eq. 11: L1 distance of text features (K, D) to the frozen ones, averaged over classes.

    Args:
        reading: ``sum`` over the D coordinates as printed, or ``mean``.
    """
    distance = (text - frozen).abs()
    return distance.sum(dim=1).mean() if reading == "sum" else distance.mean()


def prior_adjusted(logits: Tensor, counts: Tensor, kind: str, strength: float = 1.0) -> Tensor:
    """Add the class frequencies of the training set to logits (B, K), so that the classifier itself stays balanced.

    Args:
        logits: (B, K). counts: (K,) training images per class.
        kind: ``logit_adjustment`` adds strength * log prior (Menon et al., ICLR 2021). ``balanced_softmax`` adds log
            counts (Ren et al., NeurIPS 2020), the same loss as strength 1. ``compensating`` adds strength * log prior
            of counts + 1 (repo shijxcs/Candle, trainers/losses.py).
    """
    return logits + _prior(counts, kind, strength)


@kept
def _prior(counts: Tensor, kind: str, strength: float) -> Tensor:
    """What is added to the logits of each class (K,); made once a training."""
    if kind == "balanced_softmax":
        return counts.log()
    if kind == "compensating":
        counts = counts + 1
    return strength * (counts / counts.sum()).log()


def cosine_distance(unit: Tensor, other: Tensor) -> Tensor:
    """One minus the mean cosine between rows of two unit-norm matrices (N, D)."""
    return 1 - (unit * other).sum(dim=-1).mean()


def dependence(text: Tensor, frozen: Tensor) -> Tensor:
    """HSIC with linear kernels between the rows of (K, D) and (K, D), each divided by its Frobenius norm.

    trace(H A Aᵀ H B Bᵀ) with H = I - 11ᵀ/K, computed as the squared norm of the centered cross-product (repo
    cnunlp/DeKg, trainers/loss.py; without the factor 1/(K-1)²).
    """
    first, second = (x / x.norm() for x in (text, frozen))
    return ((first - first.mean(dim=0)).T @ (second - second.mean(dim=0))).square().sum()


def distillation(logits: Tensor, frozen_logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence of softmax(logits) from softmax(frozen_logits), both (B, K), mean over B * K entries.

    Division by all entries, not by B, follows repo muzairkhattak/PromptSRC, trainers/promptsrc.py.
    """
    target = F.log_softmax(frozen_logits, dim=1)
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="sum", log_target=True) / logits.numel()


def pairwise_contrast(unit_image: Tensor, unit_text: Tensor, scale: float) -> Tensor:
    """Symmetric cross-entropy of N image-text pairs, both (N, D), with the pairs on the diagonal."""
    similarity = scale * unit_image @ unit_text.T
    target = positions(len(similarity), similarity.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
