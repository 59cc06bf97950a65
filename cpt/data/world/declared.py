"""What a generated world is: families of images, and datasets that are styles and numbers of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cpt.data.world.family import Family
from cpt.data.world.style import Style


@dataclass(frozen=True)
class DataSet:
    """One dataset.

    Args:
        role: the dataset of the published benchmark whose place it takes.
        families: number of classes per family.
        style: how its images look.
        classes_of: the dataset whose classes it shares, None for classes of its own.
    """

    role: str
    families: Mapping[str, int]
    style: Style
    classes_of: str | None = None


@dataclass(frozen=True)
class World:
    """A world, whose web one tiny CLIP learns from.

    Keys of families and datasets are no other world's: images are seeded by them.

    Args:
        name: its name on the command line.
        families: what its images can show, and what its captions name.
        datasets: the first one is the source of transfer tasks; its classes are no other dataset's.
        adversarial: the shift whose images a half-trained CLIP chooses by misclassifying them, None for none.
    """

    name: str
    families: Mapping[str, Family]
    datasets: Mapping[str, DataSet]
    adversarial: str | None = None

    @property
    def source(self) -> str:
        """The source of transfer tasks."""
        return next(iter(self.datasets))
