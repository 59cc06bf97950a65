"""Simplex equiangular tight frames, what neural collapse ends in."""

from __future__ import annotations

import torch
from torch import Tensor


def simplex_etf(classes: int, dimension: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a (K, D) simplex equiangular tight frame: unit rows, every pair with cosine -1/(K-1)."""
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
