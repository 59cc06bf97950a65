"""CoCoOp: CoOp with a context that depends on the image (Zhou et al., CVPR 2022).

A small network maps the image's feature to one vector, which is added to every context vector. Each image thus has text
features of its own: B * K text encodings per step. They are computed for a few images at a time and, in training, again
in the backward pass, so that memory holds the graph of at most ``PROMPTS`` texts (or those of one image).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import Bottleneck
from cpt.methods.base.method import Method
from cpt.methods.base.prompts import TextPrompts

PROMPTS = 1024
"""Number of texts encoded at a time."""

CONFIG = "repo KaiyangZhou/CoOp, configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml"


class CoCoOpHyperparameters(TrainingHyperparameters):
    """Defaults of the published configuration, for all protocols."""

    epochs: int = field(10, "passes over the training set", CONFIG, ge=0)
    batch_size: int = field(1, "images per step", CONFIG, ge=1)
    learning_rate: float = field(0.002, "peak learning rate", CONFIG, gt=0)
    context_length: int = field(4, "number of context vectors n", CONFIG, ge=1)
    words: bool = field(True, "start from 'a photo of a' (when n <= 4)", CONFIG)
    reduction: int = field(16, "width of the meta-net: joint width / this", "Zhou et al., section 3.2", ge=1)


class CoCoOp(Method):
    """Cross-entropy over class texts that are conditioned on the image."""

    name = "cocoop"
    title = "CoCoOp"
    summary = "context vectors shifted by a network of the image feature"
    source = "Zhou et al., CVPR 2022; repo KaiyangZhou/CoOp, trainers/cocoop.py"
    hyperparameters: ClassVar = CoCoOpHyperparameters
    prompts_images = False
    own_classifier = True
    image_conditioned = True

    def __init__(self, clip: Clip, hp: CoCoOpHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.text = TextPrompts(clip, classes, hp.context_length, 1, generator, words=hp.words)
        hidden = max(1, clip.embed_dim // hp.reduction)
        self.meta_net = Bottleneck(clip.embed_dim, hidden, clip.text.width, "relu", generator)

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) under the context without an image's shift, used only for geometry in the history."""
        return self.text(classes)

    def class_logits(self, image_features: Tensor, classes: Classes) -> Tensor:
        """Logits (B, K) of every image with its own text features."""
        size = max(1, PROMPTS // len(classes))
        chunks = list(zip(image_features.split(size), self.meta_net(image_features).split(size), strict=True))
        again = torch.is_grad_enabled() and len(chunks) > 1
        rows = [
            checkpoint(self._chunk_logits, classes, *chunk, use_reentrant=False, preserve_rng_state=False)
            if again
            else self._chunk_logits(classes, *chunk)
            for chunk in chunks
        ]
        return torch.cat(rows)

    def _chunk_logits(self, classes: Classes, image_features: Tensor, shift: Tensor) -> Tensor:
        text = F.normalize(self.text(classes, shift=shift), dim=-1)  # (B, K, D)
        return self.clip.logit_scale * torch.einsum("bd,bkd->bk", image_features, text)
