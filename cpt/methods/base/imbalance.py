"""Losses for long-tailed training sets in place of the cross-entropy, as functions of logits.

Letters: B images, K classes, n_c training images of class c, π_c their share of all. What depends on ``counts`` (K,),
the n_c, is made once a training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.methods.base.losses import kept, positions, prior_adjusted
from cpt.metrics.widest import widest

SURE = 1e-12
"""Smallest 1 - p in the focal loss, whose power below 1 has no slope at 0."""


def focal(logits: Tensor, labels: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of (1 - p)^gamma (-log p), p the probability of an image's class (Lin et al., ICCV 2017).

    Args:
        logits: (B, K). labels: (B,).
        weights: (K,) of the classes, for a weighted mean.
    """
    each = F.cross_entropy(logits, labels, reduction="none")
    each = (-torch.expm1(-each)).clamp(min=SURE) ** gamma * each
    if weights is None:
        return each.mean()
    own = weights[labels]
    return (own * each).sum() / own.sum()


def less_margins(logits: Tensor, labels: Tensor, counts: Tensor, largest: float, scale: float) -> Tensor:
    """Logits (B, K) for LDAM's cross-entropy: those of an image's own class less a margin (Cao et al., NeurIPS 2019).

    Args:
        labels: (B,). counts: (K,).
        largest: margin of the rarest class, in cosine. Others are in proportion to n_c^(-1/4).
        scale: factor of the cosines in the logits.
    """
    return logits - scale * _margins(counts, largest) * _own(logits, labels)


@kept
def _margins(counts: Tensor, largest: float) -> Tensor:
    """Margins (K,)."""
    margins = counts.to(widest(counts.device)) ** -0.25
    return (largest * margins / margins.max()).float()


@kept
def class_weights(counts: Tensor, kind: str, strength: float) -> Tensor:
    """Weights (K,) of the classes in a weighted mean, with mean 1.

    Args:
        counts: (K,).
        kind: ``class_balanced`` is (1 - β) / (1 - β^n_c), the inverse of the effective number of images, with β =
            ``strength`` (Cui et al., CVPR 2019). ``generalized`` is π_c to the power of -``strength`` (Zhang et al.,
            CVPR 2021).
    """
    n = counts.to(widest(counts.device))  # 1 - β^n has few digits left in float32
    weights = (1 - strength) / (1 - strength**n) if kind == "class_balanced" else (n / n.sum()) ** -strength
    return (weights / weights.mean()).float()


def lade(logits: Tensor, labels: Tensor, counts: Tensor, weight: float, regularization: float) -> Tensor:
    """Cross-entropy with logit adjustment, less an estimate of how well logits tell classes (Hong et al., CVPR 2021).

    The estimate is Σ_c π_c (a_c - b_c - regularization b_c²) with a_c the mean logit of c over its images in the batch
    (0 without any), and b_c the log mean exponential over all images of the logit of c, each less log(π_c K).

    Args:
        logits: (B, K). labels: (B,). counts: (K,). weight: of the estimate.
    """
    share, from_uniform = _shares(counts)
    own = _own(logits, labels)
    of_class = (logits * own).sum(dim=0) / (own.sum(dim=0) + 1e-8)
    of_all = (logits - from_uniform).logsumexp(dim=0) - math.log(len(logits))
    estimate = (share * (of_class - of_all - regularization * of_all.square())).sum()
    return F.cross_entropy(prior_adjusted(logits, counts, "logit_adjustment"), labels) - weight * estimate


@kept
def _shares(counts: Tensor) -> tuple[Tensor, Tensor]:
    """π (K,), and log π less the log of a uniform prior (K,), with the published code's constants against log 0."""
    share = counts.to(widest(counts.device)) / counts.sum()
    return share.float(), ((share + 1e-9).log() - math.log(1 / len(counts) + 1e-9)).float()


def _own(logits: Tensor, labels: Tensor) -> Tensor:
    """One where a logit (B, K) is that of the image's own class, else zero."""
    return (labels.unsqueeze(1) == positions(logits.shape[1], labels.device)).to(logits.dtype)
