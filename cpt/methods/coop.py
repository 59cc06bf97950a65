"""CoOp: context vectors in the text input, shared by all classes (Zhou et al., IJCV 2022)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.method import Method
from cpt.methods.base.prompts import TextPrompts

CONFIGS = "repo KaiyangZhou/CoOp, configs/trainers/CoOp"


class CoOpHyperparameters(TrainingHyperparameters):
    """Defaults of the published configurations with a context of four words."""

    protocol_defaults: ClassVar[dict] = {"all_classes": {"epochs": 50}}
    dataset_defaults: ClassVar[dict] = {"imagenet": {"epochs": 50}}

    epochs: int = field(200, "passes over the training set", f"{CONFIGS}/vit_b16_ctxv1.yaml", ge=0)
    batch_size: int = field(32, "images per step", f"{CONFIGS}/vit_b16_ctxv1.yaml", ge=1)
    learning_rate: float = field(0.002, "peak learning rate of SGD", f"{CONFIGS}/vit_b16_ctxv1.yaml", gt=0)
    context_length: int = field(4, "number of context vectors n", f"{CONFIGS}/vit_b16_ctxv1.yaml", ge=1)
    words: bool = field(True, "start from 'a photo of a' (when n <= 4)", f"{CONFIGS}/vit_b16_ctxv1.yaml")
    class_position: Literal["end", "middle", "front"] = field(
        "end", "where the class name stands", f"{CONFIGS}/vit_b16_ctxv1.yaml"
    )
    per_class: bool = field(False, "a context of its own for every class (cannot go to new classes)", CONFIGS)


class CoOp(Method):
    """Cross-entropy over the class texts; the vision tower stays frozen."""

    name = "coop"
    title = "CoOp"
    summary = "learnable context vectors in the text input"
    source = "Zhou et al., IJCV 2022; repo KaiyangZhou/CoOp, trainers/coop.py"
    hyperparameters = CoOpHyperparameters
    prompts_images = False

    def __init__(self, clip: Clip, hp: CoOpHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.text = TextPrompts(
            clip, classes, hp.context_length, 1, generator,
            words=hp.words, position=hp.class_position, per_class=hp.per_class,
        )  # fmt: skip

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) under the learned context."""
        return self.text(classes)
