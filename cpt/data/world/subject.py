"""What one image of a generated world shows."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np

from cpt.data.world.colors import Color

Composition = tuple[str, ...]


class Subject(NamedTuple):
    """What one image shows, and the chance that decides how.

    Attributes:
        color: of the object; dark where its family has none.
        extra: its nuisance property (`Family.nuisance`), an empty text for most families.
        part: "web", "train" or "test": whose hand-written digits may be used.
        scale: about 0.2 to 1, how large it is; for textures how coarse.
        angle: its rotation in radians.
    """

    composition: Composition
    color: Color
    extra: str
    part: str
    scale: float
    angle: float
    rnd: random.Random
    rng: np.random.Generator
