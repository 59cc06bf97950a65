"""Zero-shot CLIP: a hand-written template, nothing learned (repo KaiyangZhou/CoOp, trainers/zsclip.py)."""

from __future__ import annotations

from torch import Tensor

from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import Hyperparameters, field
from cpt.methods.base.method import Method


class ZeroShotHyperparameters(Hyperparameters):
    """The choice of templates."""

    templates: str = field("dataset", "template set of the class features", "repo KaiyangZhou/CoOp, trainers/zsclip.py")


class ZeroShot(Method):
    """Frozen CLIP with the dataset's template."""

    name = "zeroshot"
    title = "Zero-shot CLIP"
    summary = "frozen CLIP with a hand-written template; nothing is learned"
    source = "Radford et al. 2021; repo KaiyangZhou/CoOp, trainers/zsclip.py"
    family = "frozen"
    hyperparameters = ZeroShotHyperparameters
    prompts_images = False
    trains = False

    def text_features(self, classes: Classes) -> Tensor:
        """Unit-norm mean (K, D) of the unit-norm features of all templates."""
        return classes.directions
