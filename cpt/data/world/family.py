"""What a family of a generated world is: a product of attributes, and how to draw it.

One choice per attribute is a *composition*, and a composition has one class name ("red star", "desert at night"). A
fixed share of a family's compositions is held out from pretraining: datasets contain classes whose words the tiny CLIP
knows but whose combination it has never met.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from cpt.data.world.objects import Pen
from cpt.data.world.subject import Composition, Subject


@dataclass(frozen=True)
class Family:
    """One kind of image, drawn by one of `fills`, `draws` and `masks`.

    Args:
        attributes: the choices of each attribute.
        roles: what each attribute is, in one word; choices of a "color" are keys of `colors.RGB`.
        name: class name with one ``{}`` per attribute, numbered where they stand in another order.
        partial: per attribute, the caption that tells only this attribute.
        generic: captions that tell only the family.
        fills: the whole 64x64 image.
        draws: draws an object with a pen on a background.
        masks: an object's mask ("L", 64x64), given its radius in pixels, which is filled with its color.
        weight: how often the web shows the family, relative to the others; the fine-grained ones need more examples.
        distinct: whether the attributes of a composition must differ from one another.
        held_out: whether a share of the compositions is kept from pretraining.
        nuisance: a property that the class does not name but a caption may: its word in the seed, and its choices.
        extended: the class name with such a property before `name`'s attribute, default ``{extra} {name}``.
        fine: strokes and small copies, which need pixels: its objects are drawn larger.
        mirrored: half of the images are mirrored.
    """

    attributes: tuple[tuple[str, ...], ...]
    roles: tuple[str, ...]
    name: str
    partial: tuple[str, ...]
    generic: tuple[str, ...]
    fills: Callable[[Subject], Image.Image] | None = None
    draws: Callable[[Pen, Subject], None] | None = None
    masks: Callable[[Subject, float], Image.Image] | None = None
    weight: float = 1.0
    distinct: bool = False
    held_out: bool = True
    nuisance: tuple[str, tuple[str, ...]] | None = None
    extended: str = ""
    fine: bool = False
    mirrored: bool = False

    @property
    def compositions(self) -> tuple[Composition, ...]:
        """All compositions, in the order of the product of the attributes."""
        product = itertools.product(*self.attributes)
        return tuple(c for c in product if not self.distinct or len(set(c)) == len(c))

    def class_name(self, composition: Composition) -> str:
        """The class name of a composition, lower case."""
        return self.name.format(*composition)

    def with_nuisance(self, words: list[str], extra: str) -> str:
        """The words of a class name and its nuisance property."""
        return self.extended.format(*words, extra=extra) if self.extended else f"{extra} {self.name.format(*words)}"
