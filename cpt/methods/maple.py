"""MaPLe: deep text prompts, from which linear maps make the visual prompts (Khattak et al., CVPR 2023)."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import linear
from cpt.methods.base.method import Method
from cpt.methods.base.prompts import TextPrompts, require_depth

CONFIGS = "repo muzairkhattak/multimodal-prompt-learning, configs/trainers/MaPLe"
BASE = f"{CONFIGS}/vit_b16_c2_ep5_batch4_2ctx.yaml"


class MaPLeHyperparameters(TrainingHyperparameters):
    """Defaults of the published base-to-new and cross-dataset configurations."""

    protocol_defaults: ClassVar[dict] = {
        "all_classes": {"epochs": 2, "learning_rate": 0.0026, "depth": 3}  # ..._cross_datasets.yaml
    }

    epochs: int = field(5, "passes over the training set (2 for all_classes)", BASE, ge=0)
    batch_size: int = field(4, "images per step", BASE, ge=1)
    learning_rate: float = field(0.0035, "peak learning rate (0.0026 for all_classes)", BASE, gt=0)
    prompts: int = field(2, "prompts per block and tower", BASE, ge=1)
    depth: int = field(9, "prompted blocks of both towers (3 for all_classes)", BASE, ge=1)
    words: bool = field(True, "start the shallow text prompts from 'a photo of a' (when n <= 4)", BASE)


class MaPLe(Method):
    """Coupled deep prompts, trained with cross-entropy only."""

    name = "maple"
    title = "MaPLe"
    summary = "deep text prompts and, projected from them, visual prompts"
    source = "Khattak et al., CVPR 2023; repo muzairkhattak/multimodal-prompt-learning, trainers/maple.py"
    hyperparameters: ClassVar = MaPLeHyperparameters

    def __init__(self, clip: Clip, hp: MaPLeHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        require_depth("depth", hp.depth, "vision", clip.vision)
        self.text = TextPrompts(clip, classes, hp.prompts, hp.depth, generator, words=hp.words)
        widths = clip.text.width, clip.vision.width
        self.projection = linear(*widths, generator)
        deep = linear(*widths, generator)
        self.deep_projections = nn.ModuleList(copy.deepcopy(deep) for _ in range(1, hp.depth))

    def visual_prompts(self) -> list[Tensor]:
        """Visual prompts (n, d) of the blocks 0..depth-1."""
        deep = (project(prompt) for project, prompt in zip(self.deep_projections, self.text.deep, strict=True))
        return [self.projection(self.text.context), *deep]

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) under the learned prompts."""
        return self.text(classes)

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D) under the projected prompts."""
        first, *deep = self.visual_prompts()
        return self.clip.vision(images, first, dict(enumerate(deep, start=1)))
