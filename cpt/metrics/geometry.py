"""Measures of features: computed here, named in ``collapse_measures``, shown by ``cpt.metrics.reported``.

They are of class features on the sphere: cosines, simplex equiangular tight frames, neural collapse.
Every measure is a differentiable 0-dimensional tensor. Measures of class features alone are defined, not NaN, for a
single class; ``collapse_measures``, whose results are reported, gives NaN where a measure has no meaning.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cpt.metrics.widest import widest


def normalize(features: Tensor) -> Tensor:
    """Divide every row of (..., D) by its L2 norm, without an epsilon, as CLIP does."""
    return features / features.norm(dim=-1, keepdim=True)


def cosine_matrix(features: Tensor) -> Tensor:
    """Return the (K, K) cosines between the rows of (K, D)."""
    unit = normalize(features)
    return unit @ unit.T


def etf_distance(features: Tensor) -> Tensor:
    """Return the root mean square of cos_ij + 1/(K-1) over i≠j; 0 for a simplex frame and for a single class."""
    classes = len(features)
    if classes == 1:
        return features.new_zeros(())
    return (_pairs(features) + 1 / (classes - 1)).square().mean().sqrt()


def cluster_etf_distance(features: Tensor, clusters: Tensor) -> Tensor:
    """Return the root mean square of cos_ij + 1/(K_m-1) over pairs i≠j of the same cluster m of K_m classes.

    0 if every cluster is a simplex frame, or if no cluster has two classes.

    Args:
        features: (K, D) class features.
        clusters: (K,) cluster of every class, integers.
    """
    together = clusters.unsqueeze(0) == clusters.unsqueeze(1)
    others = together.sum(dim=1, keepdim=True) - 1
    pairs = together & ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    gaps = (cosine_matrix(features) + 1 / others.clamp_min(1)) * pairs
    return (gaps.square().sum() / pairs.sum().clamp_min(1)).sqrt()


def collapse_degree(features: Tensor) -> Tensor:
    """Return the mean of |cos_ij + 1/(K-1)| over i≠j; 0 for a simplex frame and for a single class.

    NPT's language-collapse degree, reconstructed: its equations are not public (docs/methods.md).
    """
    classes = len(features)
    if classes == 1:
        return features.new_zeros(())
    return (_pairs(features) + 1 / (classes - 1)).abs().mean()


def alignment(image_means: Tensor, text: Tensor) -> Tensor:
    """Return the mean over classes of the cosine between a class's mean image feature and its text, both (K, D)."""
    return (normalize(image_means) * normalize(text)).sum(dim=-1).mean()


def modality_mismatch(image_means: Tensor, text: Tensor) -> Tensor:
    """Return the mean over classes of the distance between the directions of its images' mean and its text, (K, D).

    NPT's multi-modality isomorphism degree, reconstructed: its equations are not public (docs/methods.md).
    """
    return (normalize(image_means) - normalize(text)).norm(dim=-1).mean()


def within_class_variability(image_means: Tensor, counts: Tensor) -> Tensor:
    """Return the spread of unit-norm features within classes relative to the spread between classes.

    This is the trace of the within-class covariance over that of the between-class covariance: the first property of
    neural collapse (Papyan, Han and Donoho, PNAS 2020), with traces in place of the pseudo-inverse. All classes have
    equal weight. Both traces are corrected for the bias of small samples: n - 1 replaces n, and the spread between the
    means that is due to the spread within classes is subtracted. NaN if no class has two images, or if there is no
    spread between classes.

    Args:
        image_means: (K, D) mean of every class's unit-norm features.
        counts: (K,) images of every class, at least one.
    """
    classes, n = len(image_means), counts.to(image_means.dtype)
    repeated = counts > 1
    each = 1 - image_means[repeated].square().sum(dim=-1)  # mean |f|² - |mean|², with |f| = 1
    within = (each * n[repeated] / (n[repeated] - 1)).clamp_min(0).mean()
    between = (image_means - image_means.mean(dim=0)).square().sum(dim=-1).mean()
    between = between - within * (1 / n).mean() * (classes - 1) / classes
    return torch.where(between > 0, within / between, torch.nan)


def collapse_measures(
    text: Tensor | None,
    image_means: Tensor,
    counts: Tensor,
    clusters: Tensor | None = None,
) -> dict[str, float]:
    """Return the neural-collapse measures of a classifier and the images of its classes; NaN where undefined.

    Args:
        text: (K, D) text features; None leaves out the measures that need them.
        image_means: (K, D) mean of every class's unit-norm image features; rows of classes without images are ignored.
        counts: (K,) number of images of every class.
        clusters: (K,) cluster of every class; None leaves out the measures within clusters.
    """
    present = counts.nonzero().squeeze(1)
    means = image_means[present]
    found = {"within_class_variability": within_class_variability(means, counts[present])}
    if text is not None:
        pairs = len(text) > 1
        found |= {
            "etf_distance": etf_distance(text) if pairs else text.new_tensor(torch.nan),
            "collapse_degree": collapse_degree(text) if pairs else text.new_tensor(torch.nan),
            "effective_rank": effective_rank(text),
            "alignment": alignment(means, text[present].to(means.dtype)),
            "modality_mismatch": modality_mismatch(means, text[present].to(means.dtype)),
        }
        if clusters is not None:
            alone = len(clusters.unique()) == len(clusters)
            distance = text.new_tensor(torch.nan) if alone else cluster_etf_distance(text, clusters)
            found["cluster_etf_distance"] = distance
    return {name: float(value) for name, value in found.items()}


def mean_cosine(features: Tensor) -> Tensor:
    """Return the mean of cos_ij over i≠j; 0 for a single class, which has no pairs."""
    return features.new_zeros(()) if len(features) == 1 else _pairs(features).mean()


def effective_rank(features: Tensor) -> Tensor:
    """Return exp of the entropy of the normalized eigenvalues of the cosine matrix, between 1 and min(K, D).

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007. Computed in the widest precision from the
    smaller Gram matrix, which has the same non-zero eigenvalues.
    """
    unit = normalize(features.to(widest(features.device)))
    gram = unit @ unit.T if unit.shape[0] <= unit.shape[1] else unit.T @ unit
    share = torch.linalg.eigvalsh(gram).clamp_min(0) / len(unit)
    return torch.special.entr(share).sum().exp().to(features.dtype)


def drift(features: Tensor, frozen: Tensor) -> Tensor:
    """Return the mean over classes of 1 - cos between a class's feature and its frozen feature, both (K, D)."""
    return (1 - (normalize(features) * normalize(frozen)).sum(dim=-1)).mean()


def _pairs(features: Tensor) -> Tensor:
    """Return the (K, K-1) cosines off the diagonal."""
    classes = len(features)
    cosines = cosine_matrix(features)
    return cosines.flatten()[1:].view(classes - 1, classes + 1)[:, :-1].reshape(classes, classes - 1)


class ClassMeans:
    """Mean image feature of every class, accumulated batch by batch without synchronizing with the device.

    Args:
        classes: number K of classes.
        dimension: D.
        device: of the features.
    """

    def __init__(self, classes: int, dimension: int, device: torch.device) -> None:
        self.sums = torch.zeros(classes, dimension, dtype=widest(device), device=device)
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)
        self.classes = torch.arange(classes, device=device).unsqueeze(1)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add features (B, D) with labels (B,) in 0..K-1."""
        member = (labels.unsqueeze(0) == self.classes).to(self.sums.dtype)  # (K, B); an index_add would sort on a GPU
        self.sums.addmm_(member, features.to(self.sums.dtype))
        self.counts += member.sum(dim=1).long()

    def state_dict(self) -> dict[str, Tensor]:
        """Sums and counts."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back saved sums and counts."""
        self.sums.copy_(state["sums"])
        self.counts.copy_(state["counts"])

    def clear(self) -> None:
        """Forget everything, in place."""
        self.sums.zero_()
        self.counts.zero_()

    def means(self) -> Tensor:
        """Return the means (K, D); zeros for classes without images."""
        return self.sums / self.counts.clamp_min(1).unsqueeze(1)
