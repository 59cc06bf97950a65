"""Families of the embedded world: what an image can show, and which combinations pretraining never sees.

A family is a product of attributes; one choice per attribute is a *composition*, and a composition has one class
name ("red star", "desert at night"). A fixed share of each family's compositions, land excepted, is held out from
pretraining: datasets contain classes whose words the tiny CLIP knows but whose combination it has never met.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import cache

from cpt.data.world.colors import COLORS

Composition = tuple[str, ...]

HELD_OUT_SHARE = 0.22


@dataclass(frozen=True)
class Family:
    """One kind of image.

    Args:
        attributes: the choices of each attribute.
        roles: what each attribute is, in one word; choices of a "color" are keys of `colors.RGB`.
        name: class name with one ``{}`` per attribute.
        partial: per attribute, the caption that tells only this attribute.
        generic: captions that tell only the family.
        distinct: whether the attributes of a composition must differ from one another.
        held_out: whether a share of the compositions is kept from pretraining.
    """

    attributes: tuple[tuple[str, ...], ...]
    roles: tuple[str, ...]
    name: str
    partial: tuple[str, ...]
    generic: tuple[str, ...]
    distinct: bool = False
    held_out: bool = True

    @property
    def compositions(self) -> tuple[Composition, ...]:
        """All compositions, in the order of the product of the attributes."""
        product = itertools.product(*self.attributes)
        return tuple(c for c in product if not self.distinct or len(set(c)) == len(c))

    def class_name(self, composition: Composition) -> str:
        """The class name of a composition, lower case."""
        return self.name.format(*composition)


SHAPES = (
    "circle", "square", "triangle", "pentagon", "hexagon", "star", "cross", "ring", "heart", "diamond", "crescent",
    "arrow",
)  # fmt: skip
PATTERNS = (
    "horizontal stripes", "vertical stripes", "diagonal stripes", "checkerboard", "polka dots", "grid", "zigzag",
    "waves", "bricks", "crosshatch", "rings pattern", "speckles",
)  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLACES = ("sea", "desert", "forest", "mountains", "city", "snow field", "meadow", "island")
CONDITIONS = ("by day", "at sunset", "at night", "in fog", "in a storm")
KINDS = ("daisy", "pansy", "tulip", "rose", "lily", "bellflower", "sunflower", "clover")
SPECIES = ("cat", "dog", "bear", "rabbit", "mouse", "pig")
MOODS = ("happy", "sad", "surprised", "sleepy")
BODIES = ("car", "van", "truck", "bus", "tractor", "sailboat", "plane", "locomotive")
LAND = (
    "river", "highway", "forest land", "lake", "residential area", "industrial area", "crop field", "orchard",
    "pasture", "beach",
)  # fmt: skip

FAMILIES = {
    "shape": Family((COLORS, SHAPES), ("color", "shape"), "{} {}", ("{} shape", "{}"), ("a shape",)),
    "texture": Family(
        (COLORS[:9], PATTERNS), ("color", "pattern"), "{} {}", ("{} pattern", "{}"), ("a texture", "a pattern")
    ),
    "letter": Family(
        (("plain", "bold", "serif", "italic"), tuple("abefghkmnprstwxz")),
        ("style", "letter"),
        "{} letter {}",
        ("{} letter", "letter {}"),
        ("a letter",),
    ),
    "digit": Family(
        (COLORS, DIGITS), ("color", "digit"), "{} digit {}", ("{} digit", "digit {}"), ("a digit", "a number")
    ),
    "arr": Family(
        (
            ("two", "three", "four"),
            ("circles", "squares", "triangles", "stars", "hearts", "crosses"),
            ("in a row", "in a column", "in a circle", "on a diagonal"),
        ),
        ("count", "shape", "layout"),
        "{} {} {}",
        ("{} shapes", "{}", "shapes {}"),
        ("some shapes",),
    ),
    "scene": Family((PLACES, CONDITIONS), ("place", "condition"), "{} {}", ("{}", "landscape {}"), ("a landscape",)),
    "flower": Family(
        (("red", "orange", "yellow", "blue", "purple", "pink", "white"), KINDS),
        ("color", "kind"),
        "{} {}",
        ("{} flower", "{}"),
        ("a flower",),
    ),
    "animal": Family(
        (("brown", "white", "gray", "black", "orange", "pink"), SPECIES),
        ("color", "species"),
        "{} {}",
        ("{} animal", "{}"),
        ("an animal", "a face"),
    ),
    "vehicle": Family(
        (("red", "orange", "yellow", "green", "blue", "purple", "white", "black"), BODIES),
        ("color", "body"),
        "{} {}",
        ("{} vehicle", "{}"),
        ("a vehicle",),
    ),
    "land": Family((LAND,), ("cover",), "{}", ("{}",), ("an aerial view", "a satellite picture"), held_out=False),
    "gradient": Family(
        (("red", "yellow", "green", "blue", "purple", "white", "black"),) * 2,
        ("color", "color"),
        "{} to {} gradient",
        ("gradient from {}", "gradient to {}"),
        ("a gradient",),
        distinct=True,
    ),
}


@cache
def held_out(family: str) -> frozenset[Composition]:
    """The compositions of a family that appear neither as image nor as caption in pretraining."""
    compositions, share = FAMILIES[family].compositions, HELD_OUT_SHARE * FAMILIES[family].held_out
    return frozenset(random.Random(f"held out {family}").sample(compositions, round(share * len(compositions))))


def nuisance(family: str, seed: int) -> str:
    """A property of the image with this seed that its class does not name, but that its web caption may.

    Returns:
        the color of a letter or an arrangement, the mood of an animal, an empty text for the other families.
    """
    if family in ("letter", "arr"):
        return random.Random(f"colour {seed}").choice(COLORS)  # the seed of the shipped weights: not to be respelled
    return random.Random(f"mood {seed}").choice(MOODS) if family == "animal" else ""
