"""CoCoOp: CoOp whose context moves with the image (Zhou et al., CVPR 2022).

A small network adds one vector, made of the image's feature, to every context vector, so each image has text features
of its own: B * K text encodings per step. They are computed for some images at a time and, in training, again in the
backward pass, so that memory holds the graph of at most ``PROMPTS`` texts (or of one image's).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import Trained, field
from cpt.methods.base.layers import Bottleneck
from cpt.methods.base.method import Batch, Method, Training
from cpt.methods.base.prompts import TextPrompts

PROMPTS = 1024
"""Texts that are encoded at a time."""

CONFIG = "repo KaiyangZhou/CoOp, configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml"


class CoCoOpHyperparameters(Trained):
    """Defaults of the published configuration, the same for all protocols."""

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
    image_conditioned = True

    def __init__(self, clip: Clip, hp: CoCoOpHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.text = TextPrompts(clip.text, classes, hp.context_length, 1, generator, words=hp.words)
        hidden = max(1, clip.embed_dim // hp.reduction)
        self.meta_net = Bottleneck(clip.embed_dim, hidden, clip.text.width, "relu", generator)

    def text_features(self, classes: Classes, shift: Tensor | None = None) -> Tensor:
        """Unit-norm text features (B, K, D) under the context moved by each row of ``shift`` (B, d).

        Without a shift (K, D): no image's classifier; only the geometry of the history is taken from them.
        """
        return F.normalize(self.text(self.clip.text, classes, shift=shift), dim=-1)

    def class_logits(self, image_features: Tensor, classes: Classes) -> Tensor:
        """Logits (B, K), every image against text features of its own."""
        size = max(1, PROMPTS // len(classes))
        chunks = list(zip(image_features.split(size), self.meta_net(image_features).split(size), strict=True))
        again = torch.is_grad_enabled() and len(chunks) > 1
        rows = [
            checkpoint(self._chunk_logits, classes, *chunk, use_reentrant=False)
            if again
            else self._chunk_logits(classes, *chunk)
            for chunk in chunks
        ]
        return torch.cat(rows)

    def _chunk_logits(self, classes: Classes, image_features: Tensor, shift: Tensor) -> Tensor:
        text = self.text_features(classes, shift)
        return self.clip.logit_scale * torch.einsum("bd,bkd->bk", image_features, text)

    def losses(self, batch: Batch, training: Training) -> dict[str, Tensor]:
        """Cross-entropy, mean over the batch."""
        logits = self.class_logits(self.batch_features(batch), training.classes)
        return {"cross_entropy": self.cross_entropy(logits, batch, training)}
