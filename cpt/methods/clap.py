"""CLAP: a linear probe whose rows are held near the class texts (Silva-Rodríguez et al., CVPR 2024).

ZS-LP's loss plus ``mean_c lambda_c h_c``, with ``h_c = ||w_c - t_c||²`` of the raw row w_c and text feature t_c. The
multiplier lambda_c is how probable zero-shot CLIP holds class c on its own training images, on average: a class that
CLIP knows is held more firmly. The published code takes this from 20 augmented passes over the images, here it is from
one pass without augmentation. There a class without images has no multiplier (NaN); here it has the mean of the others.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.class_rows import CLAP_CODE, ProbeHyperparameters, mean_probability
from cpt.methods.base.hyperparameters import field
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.zs_lp import ZSLP

PAPER = "Silva-Rodríguez et al., CVPR 2024"


class CLAPHyperparameters(ProbeHyperparameters):
    """ZS-LP's and the constraint."""

    constraint: Literal["l2", "cosine"] = field(
        "l2", "distance h of a row to its text: squared, or one minus the cosine", PAPER
    )
    multipliers: Literal["zero_shot", "corrected", "constant", "balanced", "adaptive"] = field(
        "zero_shot",
        "lambda_c: mean zero-shot probability of the class on its images; this with mean 1; its mean for all classes; "
        "1; or changed by an outer step after every epoch",
        PAPER,
    )


class CLAP(ZSLP):
    """Cross-entropy plus a class-adaptive penalty on the distance of the rows to the class texts."""

    name = "clap"
    title = "CLAP"
    summary = "linear probe held near the class texts, more firmly for classes that zero-shot CLIP knows"
    source = f"{PAPER}; {CLAP_CODE}"
    hyperparameters: ClassVar = CLAPHyperparameters
    needs_training_features = True

    multipliers: Tensor
    growth: Tensor

    def __init__(self, clip: Clip, hp: CLAPHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.register_buffer("multipliers", torch.ones_like(classes.frozen[:, 0]))
        self.register_buffer("growth", torch.zeros_like(classes.frozen[:, 0]))

    @torch.no_grad()
    def prepare(self, training_set: TrainingSet, features: Tensor | None) -> None:
        """Set the multipliers (K,)."""
        assert features is not None
        assert training_set.labels is not None
        if self.hp.multipliers == "balanced":
            return
        labels = training_set.labels.to(features.device)
        found = mean_probability(features, training_set.classes.frozen, labels, self.scale)
        if self.hp.multipliers == "corrected":
            found = found / found.mean()
        if self.hp.multipliers == "constant":
            found = found.mean().expand_as(found)
        self.multipliers.copy_(found)

    def distances(self) -> Tensor:
        """Distance h (K,) of every row to its text feature."""
        if self.hp.constraint == "cosine":
            return 1 - F.cosine_similarity(self.rows, self.trained.frozen)
        return (self.rows - self.trained.frozen).square().sum(dim=1)

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Cross-entropy and penalty."""
        return super().losses(image, batch, training_set) | {
            "constraint": (self.multipliers * self.distances()).mean(),
        }

    @torch.no_grad()
    def epoch_end(self, epoch: int) -> None:
        """With adaptive multipliers: lambda <- max(0, lambda + rho h), then rho <- h; rho starts at 0."""
        if self.hp.multipliers == "adaptive":
            distances = self.distances()
            self.multipliers.copy_((self.multipliers + self.growth * distances).clamp(min=0))
            self.growth.copy_(distances)
