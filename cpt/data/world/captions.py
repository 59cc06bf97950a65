"""The web of a generated world: captioned images for pretraining, their captions as imperfect as those of the real web.

Captions are incomplete, wrong, generic or loosely worded with the probabilities below. They are why the tiny CLIP
is a mediocre zero-shot classifier and prompt tuning has something to learn.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from cpt.data.world.colors import RGB
from cpt.data.world.declared import World
from cpt.data.world.render import draw_image, image_seed
from cpt.data.world.style import WEB
from cpt.data.world.subject import Composition
from cpt.data.world.worlds import FAMILIES, held_out, nuisance

TEMPLATES = (
    "a photo of a {}.", "a photo of a {}.", "a photo of a {}.", "{}", "{}", "a {}", "an image of a {}",
    "a picture of {}", "a drawing of a {}.", "this is a {}", "my favourite {}", "stock photo, {}",
    "{} in a small picture", "a blurry photo of a {}.", "the {}",
)  # fmt: skip
SYNONYMS = {
    "red": ("crimson", "scarlet"), "yellow": ("golden",), "green": ("emerald",), "teal": ("cyan",), "blue": ("navy",),
    "purple": ("violet",), "white": ("pale",), "gray": ("silver",), "black": ("dark",),
}  # fmt: skip
UNRELATED = 0.08
WRONG_ATTRIBUTE = 0.12
GENERIC = 0.08
PARTIAL = 0.25
SYNONYM = 0.12
NUISANCE = 0.3


@dataclass(frozen=True)
class Pair:
    """One image of a web, by what it shows and its seed, and its caption."""

    family: str
    composition: Composition
    seed: int
    caption: str


@cache
def seen(family: str) -> tuple[tuple[Composition, ...], tuple[float, ...]]:
    """The compositions of a family that pretraining shows, by falling frequency, and their cumulative weights."""
    compositions = [c for c in FAMILIES[family].compositions if c not in held_out(family)]
    random.Random(f"rank {family}").shuffle(compositions)
    return tuple(compositions), tuple(itertools.accumulate((1 + r / 8) ** -0.5 for r in range(len(compositions))))


def draw_composition(world: World, rnd: random.Random) -> tuple[str, Composition]:
    """A family of a world and one of its compositions by their frequency on its web."""
    weights_of = {name: family.weight for name, family in world.families.items()}
    family = rnd.choices(tuple(weights_of), tuple(weights_of.values()))[0]
    compositions, weights = seen(family)
    return family, rnd.choices(compositions, cum_weights=weights)[0]


def caption(world: World, family: str, composition: Composition, extra: str, rnd: random.Random) -> str:
    """A caption of an image, noise included; it never names a held-out composition.

    Args:
        extra: the nuisance property of the image (see `worlds.nuisance`).
    """
    if rnd.random() < UNRELATED:
        family, composition = draw_composition(world, rnd)
        extra = ""
    elif rnd.random() < WRONG_ATTRIBUTE:
        others = [c for c in seen(family)[0] if sum(a != b for a, b in zip(c, composition, strict=True)) == 1]
        composition = rnd.choice(others) if others else composition
    described = FAMILIES[family]
    roll = rnd.random()
    if roll < GENERIC:
        return rnd.choice(described.generic)
    words = [
        rnd.choice(SYNONYMS[w]) if role == "color" and w in SYNONYMS and rnd.random() < SYNONYM else w
        for role, w in zip(described.roles, composition, strict=True)
    ]
    if roll < GENERIC + PARTIAL:
        which = rnd.randrange(len(words))
        text = described.partial[which].format(words[which])
    else:
        text = described.name.format(*words)
        if extra and rnd.random() < NUISANCE:
            text = described.with_nuisance(words, extra)
    return rnd.choice(TEMPLATES).format(text)


def web(world: World, pairs: int, seed: int) -> list[Pair]:
    """The first pairs of a world's web of a pretraining seed."""
    found = []
    for index in range(pairs):
        number = image_seed("web", seed, index)
        rnd = random.Random(f"caption {number}")
        family, composition = draw_composition(world, rnd)
        text = caption(world, family, composition, nuisance(family, number), rnd)
        found.append(Pair(family, composition, number, text))
    return found


def render_web(pairs: list[Pair]) -> np.ndarray:
    """The images of pairs, uint8 (N, 32, 32, 3)."""
    return np.stack([draw_image(pair.family, pair.composition, WEB, pair.seed, "web") for pair in pairs])


def phrases(world: World) -> Iterator[str]:
    """Texts that together contain every word of a world's class names and captions: its tokenizer is made from them."""
    for family in world.families.values():
        for composition in family.compositions:
            yield family.class_name(composition)
        yield from family.generic
        yield from (text.format("") for text in family.partial)
        yield from family.nuisance[1] if family.nuisance else ()
    yield from (template.format("") for template in TEMPLATES)
    yield from itertools.chain(*SYNONYMS.values(), RGB)
