"""IVLP: independent prompts in both towers at several depths (row 1 of the paper's Table 1)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.clip.inside import Needs
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import PLKR, TrainingHyperparameters, field
from cpt.methods.base.method import Method
from cpt.methods.base.prompts import TextPrompts, VisualPrompts


class IVLPHyperparameters(TrainingHyperparameters):
    """Optimization and prompts of the CPT paper, so that CPT differs from IVLP only in its losses."""

    protocol_defaults: ClassVar[dict] = {
        "all_classes": {"epochs": 8, "depth_text": 3, "depth_vision": 3},
        "few_shot": {"epochs": 25},
    }

    text_prompts: int = field(4, "context vectors per prompted text block", "CPT, supplement 6.1", ge=1)
    visual_prompts: int = field(4, "prompt tokens per prompted vision block", "CPT, supplement 6.1", ge=1)
    depth_text: int = field(9, "prompted text blocks (3 for all_classes)", PLKR, ge=1)
    depth_vision: int = field(9, "prompted vision blocks (3 for all_classes)", PLKR, ge=0)
    words: bool = field(True, "start the shallow text prompts from 'a photo of a' (when n <= 4)", PLKR)


class IVLP(Method):
    """Deep text and visual prompts, cross-entropy only."""

    name = "ivlp"
    title = "IVLP"
    summary = "independent deep prompts in both towers, cross-entropy only"
    source = "Rasheed et al., CVPR 2023; repo muzairkhattak/PromptSRC, trainers/independentVL.py"
    hyperparameters = IVLPHyperparameters

    def __init__(self, clip: Clip, hp: IVLPHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.text = TextPrompts(
            clip, classes, hp.text_prompts, hp.depth_text, generator, words=hp.words, setting="depth_text"
        )
        self.visual = VisualPrompts(clip, hp.visual_prompts, hp.depth_vision, generator)

    @classmethod
    def tower_needs(cls, hp: IVLPHyperparameters) -> Needs:
        """Blocks, if any are prompted."""
        return "blocks" if hp.depth_vision else "nothing"

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) under the learned prompts."""
        return self.text(classes)

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D) under the learned prompts."""
        return self.visual(images)
