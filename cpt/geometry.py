"""Geometry of class features on the sphere: cosines, simplex equiangular tight frames, neural-collapse measures.

Every measure is a 0-dimensional tensor, differentiable, and defined without NaN for a single class.
"""

from __future__ import annotations

import torch

from cpt.errors import CptError


def normalise(features: torch.Tensor) -> torch.Tensor:
    """Divide every row of (..., D) by its L2 norm, without epsilon, as CLIP does."""
    return features / features.norm(dim=-1, keepdim=True)


def cosine_matrix(features: torch.Tensor) -> torch.Tensor:
    """Return the (K, K) cosines between the rows of (K, D)."""
    unit = normalise(features)
    return unit @ unit.T


def simplex_etf(classes: int, dimension: int, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return a (K, D) simplex equiangular tight frame: unit rows, every pair with cosine -1/(K-1).

    Raises:
        CptError: D below K-1, where no such frame exists.
    """
    if dimension < max(classes - 1, 1):
        raise CptError(
            f"simplex of {classes} classes: needs at least {max(classes - 1, 1)} dimensions, got {dimension}; "
            "use fewer classes"
        )
    frame = torch.zeros(classes, dimension, dtype=torch.float64)
    if classes == 1:
        frame[0, 0] = 1
        return frame.to(dtype)
    # Column j of the Helmert matrix: j+1 equal entries balanced by one; all span the complement of the ones.
    index = torch.arange(classes, dtype=torch.float64).unsqueeze(1)
    step = torch.arange(1, classes, dtype=torch.float64)
    helmert = ((index < step).double() - step * (index == step).double()) / torch.sqrt(step * (step + 1))
    frame[:, : classes - 1] = helmert * (classes / (classes - 1)) ** 0.5
    return frame.to(dtype)


def etf_distance(features: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of cos_ij + 1/(K-1) over i≠j; 0 for a simplex frame and for a single class."""
    classes = len(features)
    if classes == 1:
        return features.new_zeros(())
    return (_pairs(features) + 1 / (classes - 1)).square().mean().sqrt()


def mean_cosine(features: torch.Tensor) -> torch.Tensor:
    """Return the mean of cos_ij over i≠j; 0 for a single class, which has no pairs."""
    return features.new_zeros(()) if len(features) == 1 else _pairs(features).mean()


def effective_rank(features: torch.Tensor) -> torch.Tensor:
    """Return exp of the entropy of the normalised eigenvalues of the cosine matrix, between 1 and min(K, D).

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007. Computed in float64 from the smaller Gram matrix,
    which has the same non-zero eigenvalues.
    """
    unit = normalise(features.double())
    gram = unit @ unit.T if unit.shape[0] <= unit.shape[1] else unit.T @ unit
    share = torch.linalg.eigvalsh(gram).clamp_min(0) / len(unit)
    return torch.special.entr(share).sum().exp().to(features.dtype)


def drift(features: torch.Tensor, frozen: torch.Tensor) -> torch.Tensor:
    """Return the mean over classes of 1 - cos between a class's feature and its frozen feature, both (K, D)."""
    return (1 - (normalise(features) * normalise(frozen)).sum(dim=-1)).mean()


def _pairs(features: torch.Tensor) -> torch.Tensor:
    """Return the (K, K-1) cosines off the diagonal."""
    classes = len(features)
    cosines = cosine_matrix(features)
    return cosines.flatten()[1:].view(classes - 1, classes + 1)[:, :-1].reshape(classes, classes - 1)
