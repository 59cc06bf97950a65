"""Losses of prompt tuning as functions of features.

Letters: B images, K classes, D joint width, M clusters, k_m classes of cluster m. Features called *unit* have norm 1.
Equation numbers are those of the CPT paper (arXiv 2605.11939).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def in_batch_contrast(unit_image: Tensor, unit_text: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Eq. 1 as printed: contrast of each image's text with all images of the batch, summed over the batch.

    Args:
        unit_image: (B, D). unit_text: (K, D). labels: (B,). scale: inverse temperature.
    """
    similarity = scale * unit_text[labels] @ unit_image.T  # (B, B)
    return F.cross_entropy(similarity, torch.arange(len(labels), device=labels.device), reduction="sum")


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
    same = clusters.unsqueeze(0) == clusters.unsqueeze(1)
    size = same.sum(dim=1)  # (K,) size of each class's cluster
    pairs = same & ~torch.eye(len(clusters), dtype=torch.bool, device=clusters.device)
    used = size >= 2
    if not bool(used.any()):
        return unit_text.sum() * 0.0
    target = -1.0 / (size - 1).clamp(min=1)
    squared = (unit_text @ unit_text.T - target.unsqueeze(1)).square() * pairs  # (K, K)
    per_class = squared.sum(dim=1)
    if reading == "pairs":
        per_class = per_class / (size * (size - 1)).clamp(min=1)
    elif reading == "entries":
        per_class = per_class / size.square()
    if by_size:
        return (per_class * size * used).sum() / used.sum()
    return (per_class * used).sum() / (used / size).sum()


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
    distance = (unit_image - text[labels]).square().sum(dim=1)  # (B,)
    if reading == "importance":
        assert counts is not None, "the importance reading needs the classes' counts"
        weight = counts.sum() / (len(counts) * counts[labels])
        return (weight * distance).mean()
    present = torch.zeros(len(unit_text), dtype=distance.dtype, device=distance.device)
    number = present.index_add(0, labels, torch.ones_like(distance))
    means = present.index_add(0, labels, distance) / number.clamp(min=1)
    return means.sum() / (number > 0).sum()


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
    if kind == "balanced_softmax":
        return logits + counts.log()
    if kind == "compensating":
        counts = counts + 1
    return logits + strength * (counts / counts.sum()).log()


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
    target = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
