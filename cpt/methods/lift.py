"""LIFT: adapters beside the vision tower's MLPs, a head that starts as the class texts (Shi et al., ICML 2024).

In every block ``s Up(ReLU(Down(LN(u))))`` is added to the block's output, for all tokens; ``u`` stands between its
attention and its MLP. The head classifies the class token (B, d) before the projection, by cosines with its rows
(K, d). These start as the unit text features through the transposed projection; the text tower is not used again.

A class without a row of its own, that is one whose name was not trained, is scored by the row that it would have
started with.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.blocks import Block, BlockAdapter, layer_norm
from cpt.features.text import Classes
from cpt.methods.base.class_rows import RowClassifier
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import in_precision, zero_linear
from cpt.methods.base.prompts import require_block

CODE = "repo shijxcs/LIFT"
CONFIG = f"{CODE}, utils/config.py"


class LIFTHyperparameters(TrainingHyperparameters):
    """Defaults of the published code, for all protocols."""

    epochs: int = field(10, "passes over the training set", CONFIG, ge=0)
    batch_size: int = field(128, "images per step", CONFIG, ge=1)
    learning_rate: float = field(0.01, "peak learning rate of SGD", CONFIG, gt=0)
    warmup_epochs: int = field(0, "epochs at the constant warm-up rate", f"{CODE}, trainer.py", ge=0)
    prior: Literal["none", "logit_adjustment", "balanced_softmax", "compensating"] = field(
        "logit_adjustment", "add the class frequencies to the logits of the cross-entropy", CONFIG
    )
    scale: float = field(25.0, "factor of the head's cosines", CONFIG, gt=0)
    adapter_width: int | None = field(
        None, "width m of the adapters; default: 2^floor(log2(K / 2L)) for K classes and L blocks, at least 1",
        f"{CODE}, models/peft_vit.py", ge=1,
    )  # fmt: skip
    blocks: list[Annotated[int, Field(ge=0)]] | None = field(
        None, "numbers of the adapted vision blocks, from 0; default: all", CONFIG
    )
    test_crops: Literal[1, 5] = field(
        1, "crops of a test image whose logits are averaged: the center, or corners and center of a larger one", CONFIG
    )


class AdaptFormer(BlockAdapter):
    """``s Up(ReLU(Down(LN(u))))`` of every token, parallel to the MLP (Chen et al., NeurIPS 2022).

    Args:
        width: d of the tower.
        hidden: m.
        generator: random stream of Down; Up starts as zero.
    """

    def __init__(self, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down, self.up = zero_linear(width, hidden), zero_linear(hidden, width)
        self.scale = nn.Parameter(torch.ones(1))
        nn.init.kaiming_normal_(self.down.weight, a=math.sqrt(5), generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        weight, bias, scale = (p.to(tokens.dtype) for p in (self.norm.weight, self.norm.bias, self.scale))
        hidden = in_precision(self.down, layer_norm(tokens, weight, bias, self.norm.eps))
        return scale * in_precision(self.up, F.relu(hidden))

    def output(self, block: Block, before: Tensor, between: Tensor, after: Tensor) -> Tensor:
        """The block's output with that of the adapter."""
        return after + self(between)


def adapter_width(classes: int, blocks: int) -> int:
    """Width of the adapters by LIFT's rule: the largest power of two up to K / 2L, at least 1.

    Args:
        classes: K. blocks: L of the whole tower, however many are adapted.
    """
    return 1 << max(0, (classes // (2 * blocks)).bit_length() - 1)


class LIFT(RowClassifier):
    """Cross-entropy of an adapted vision tower's class token under a cosine head, with logit adjustment."""

    name = "lift"
    title = "LIFT"
    summary = "adapters in the vision tower and a cosine head that starts as the class texts, with logit adjustment"
    source = f"Shi et al., ICML 2024; {CODE}, models/peft_vit.py, models/peft_modules.py, trainer.py"
    family = "adapters"
    hyperparameters: ClassVar = LIFTHyperparameters
    prompts_images = True

    def __init__(self, clip: Clip, hp: LIFTHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        layers = len(clip.vision.blocks)
        blocks = range(layers) if hp.blocks is None else sorted(set(hp.blocks))
        for block in blocks:
            require_block("blocks", block, "vision", clip.vision)
        width = hp.adapter_width or adapter_width(len(classes), layers)
        self.adapters = nn.ModuleDict({str(i): AdaptFormer(clip.vision.width, width, generator) for i in blocks})
        self.head = nn.Parameter(self.reference(classes).clone())

    @property
    def feature_width(self) -> int:
        """Width d of the class token."""
        return self.clip.vision.width

    @property
    def scale(self) -> float:
        """Factor of the head's cosines."""
        return self.hp.scale

    @torch.no_grad()
    def reference(self, classes: Classes) -> Tensor:
        """Rows (K, d) with which the head starts for classes: unit text features through the transposed projection."""
        projection = self.clip.vision.proj
        return F.normalize(classes.frozen_unit if projection is None else classes.frozen_unit @ projection.float().T)

    def class_rows(self) -> Tensor:
        """The head (K, d)."""
        return self.head

    def texts(self, classes: Classes) -> Tensor:
        """Rows (K, d) that classes would have started with."""
        return self.reference(classes)

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Class tokens (B, d) behind ``ln_post``."""
        adapters = {int(block): adapter for block, adapter in self.adapters.items()}
        return self.clip.vision(images, adapters=adapters, tokens=0)[:, 0]
