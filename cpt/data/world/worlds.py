"""All generated worlds, and which combinations pretraining never sees."""

from __future__ import annotations

import random
from functools import cache

from cpt.data.world.declared import World
from cpt.data.world.first import FIRST
from cpt.data.world.second import SECOND
from cpt.data.world.subject import Composition

HELD_OUT_SHARE = 0.22
WORLDS = {world.name: world for world in (FIRST, SECOND)}
FAMILIES = {name: family for world in WORLDS.values() for name, family in world.families.items()}
DATA_SETS = {key: data_set for world in WORLDS.values() for key, data_set in world.datasets.items()}


@cache
def world_of(key: str) -> World:
    """The world of a dataset.

    Raises:
        KeyError: unknown dataset.
    """
    DATA_SETS[key]
    return next(world for world in WORLDS.values() if key in world.datasets)


@cache
def held_out(family: str) -> frozenset[Composition]:
    """The compositions of a family that appear neither as image nor as caption in pretraining."""
    compositions, share = FAMILIES[family].compositions, HELD_OUT_SHARE * FAMILIES[family].held_out
    return frozenset(random.Random(f"held out {family}").sample(compositions, round(share * len(compositions))))


def nuisance(family: str, seed: int) -> str:
    """A property of the image with this seed that its class does not name, but that its web caption may.

    Returns:
        such as the color of a letter, the mood of an animal; an empty text for most families.
    """
    property_of = FAMILIES[family].nuisance
    return random.Random(f"{property_of[0]} {seed}").choice(property_of[1]) if property_of else ""
