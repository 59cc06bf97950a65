"""Named random streams: every use of randomness has a stream of its own, derived from (seed, name).

Changing how one stream is consumed never changes another, and a stream that is named by its epoch needs no
saved state to be resumed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed, the same on every machine, for the stream ``names`` of run ``seed``."""
    text = "|".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_stream(seed: int, *names: object) -> np.random.Generator:
    """Return the named stream as a numpy generator."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *names)))


def torch_stream(seed: int, *names: object) -> torch.Generator:
    """Return the named stream as a CPU torch generator."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, *names))
