"""The widest precision of a device."""

from __future__ import annotations

import torch

WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices, here Apple's GPUs, that have no float64."""


def widest(device: torch.device) -> torch.dtype:
    """Precision of sums and of constants computed once: float64, or float32 where a device has no wider one."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64
