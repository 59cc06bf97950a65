"""MMRL: tokens of a space that both modalities share, inserted into the upper blocks of both towers.

Guo and Gu, CVPR 2025. The class token keeps its frozen projection; the representation tokens have one of their own,
which is learned. Trained classes are scored by a mixture of both, others by the class token alone: their rows are the
texts of their names with the same learned tokens, so no class needs a row of its own.

The mixture is one classifier by cosines: with unit features f of the class token, r of the representation tokens and t
of a class, [√α f, √(1-α) r] · [√α t, √(1-α) t] = α f·t + (1-α) r·t, and both vectors have norm 1.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.blocks import Prompts
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import Projections
from cpt.methods.base.losses import cosine_distance
from cpt.methods.base.method import Batch, Method, TrainingSet
from cpt.methods.base.prompts import STD, Packed, block_range

CODE = "repo yunncheng/MMRL, trainers/mmrl.py"
CONFIG = "repo yunncheng/MMRL, configs/trainers/MMRL/vit_b16.yaml"
BY_DATASET = "repo yunncheng/MMRL, trainers/config.py"

SCALE = 100.0
"""Factor of the cosines: a constant in the published code, whatever the backbone's own."""

CONSISTENCY = {
    "imagenet": 0.5, "caltech101": 0.5, "oxford_pets": 0.2, "stanford_cars": 7.0, "oxford_flowers": 4.0, "food101": 5.0,
    "fgvc_aircraft": 6.0, "sun397": 6.0, "dtd": 6.0, "eurosat": 0.01, "ucf101": 3.0,
}  # fmt: skip
"""``consistency_weight`` by dataset; the published code takes them for base-to-new and few-shot."""


class MMRLHyperparameters(TrainingHyperparameters):
    """Defaults of the published base-to-new configuration."""

    protocol_defaults: ClassVar[dict] = {
        "all_classes": {"epochs": 1, "warmup_epochs": 0, "batch_size": 32, "consistency_weight": 0.2},
        "few_shot": {"epochs": 50, "batch_size": 32, "consistency_weight": 0.5},
    }
    dataset_defaults: ClassVar[dict] = {
        **{dataset: {"consistency_weight": weight} for dataset, weight in CONSISTENCY.items()},
        "eurosat": {"consistency_weight": CONSISTENCY["eurosat"], "dimension": 2048},
        "base_to_new/imagenet": {"epochs": 5, "batch_size": 32},  # vit_b16_imagenet.yaml
        "few_shot/imagenet": {"epochs": 5},
        "all_classes/imagenet": {"consistency_weight": 0.2},  # scripts/mmrl/cross_datasets_train.sh
    }

    epochs: int = field(10, "passes over the training set (1 for all_classes, 50 for few_shot)", CONFIG, ge=0)
    batch_size: int = field(4, "images per step (32 for all_classes and few_shot)", CONFIG, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = field("adamw", "adam and adamw: betas 0.9 and 0.999", CONFIG)
    learning_rate: float = field(0.001, "peak learning rate", CONFIG, gt=0)
    templates: str = field("dataset", "template set of prompts (its first) and frozen text features", CODE)
    tokens: int = field(5, "representation tokens n", CONFIG, ge=1)
    dimension: int = field(512, "width of the space that both modalities share", CONFIG, ge=1)
    first_block: int = field(5, "block of both towers, from 0, at whose input the tokens are inserted", CONFIG, ge=0)
    last_block: int = field(11, "last block at whose input they are replaced by its own", CONFIG, ge=0)
    class_share: float = field(0.7, "share of the class token in loss and mixture (alpha)", CONFIG, gt=0, lt=1)
    consistency_weight: float = field(
        1.0, "weight of the cosine distances to the frozen features of both modalities (lambda)", BY_DATASET, ge=0
    )


class MMRL(Method):
    """Representation tokens in both towers, trained with two cross-entropies and held near frozen CLIP."""

    name = "mmrl"
    title = "MMRL"
    summary = "tokens of a shared space inserted into both towers; trained classes by a mixture with their own features"
    source = f"Guo and Gu, CVPR 2025; {CODE}"
    hyperparameters: ClassVar = MMRLHyperparameters
    uses_frozen_images = True
    depends_on_target = True
    augmentation = "rrc_half_flip"

    def __init__(self, clip: Clip, hp: MMRLHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.blocks = block_range(hp.first_block, hp.last_block, clip)
        self.tokens = nn.Parameter(torch.empty(hp.tokens, hp.dimension).normal_(std=STD, generator=generator))
        self.to_text = Projections(len(self.blocks), hp.dimension, clip.text.width, generator)
        self.to_vision = Projections(len(self.blocks), hp.dimension, clip.vision.width, generator)
        shape, std = (clip.vision.width, clip.embed_dim), clip.vision.width**-0.5
        self.projection = nn.Parameter(torch.empty(shape).normal_(std=std, generator=generator))
        self.packed = Packed()
        self._on_trained = True

    @property
    def scale(self) -> float:
        """Factor of cosines in its logits."""
        return SCALE

    @property
    def feature_width(self) -> int:
        """Width of its features: of both halves of the mixture, or D."""
        return self.clip.embed_dim * (2 if self.mixes else 1)

    @property
    def mixes(self) -> bool:
        """Whether features are those of the mixture: in training, and for trained classes."""
        return self.training or self._on_trained

    def target(self, *, trained: bool) -> None:
        """Choose the mixture, or the class token alone."""
        self._on_trained = trained

    def mixture(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, 2D) of features (N, D) that are weighted by alpha and 1 - alpha."""
        share = self.hp.class_share
        return torch.cat([math.sqrt(share) * first, math.sqrt(1 - share) * second], dim=-1)

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) with the tokens inserted, or (K, 2D) for the mixture."""
        text = self.class_texts(classes)
        return self.mixture(text, text) if self.mixes else text

    def class_texts(self, classes: Classes) -> Tensor:
        """Text features (K, D) with the tokens inserted behind the start token, not normalized."""
        packed = self.packed(classes, lambda: self.clip.text.pack(classes.template_tokens))
        return self.clip.text(packed, deep=self._deep(self.to_text), insert=True)

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D) of the class token, or (B, 2D) for the mixture, whose halves are normalized."""
        deep = self._deep(self.to_vision)
        if not self.mixes:
            return self.clip.vision(images, deep=deep)
        tokens = self.clip.vision(images, deep=deep, tokens=self.hp.tokens)
        own = tokens[:, 1:].mean(dim=1) @ self.projection
        return self.mixture(F.normalize(self.clip.vision.project(tokens[:, 0]), dim=-1), F.normalize(own, dim=-1))

    def reference(self, classes: Classes) -> Tensor:
        """The frozen features as text features are: (K, 2D) for the mixture."""
        return self.mixture(classes.frozen, classes.frozen) if self.mixes else classes.frozen

    def weights(self) -> dict[str, float]:
        """Shares of the two cross-entropies, and lambda for both modalities."""
        hp = self.hp
        return {
            "cross_entropy": hp.class_share,
            "cross_entropy_representation": 1 - hp.class_share,
            "image": hp.consistency_weight,
            "text": hp.consistency_weight,
        }

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """A cross-entropy for the class token and one for the others; cosine distances to the frozen features."""
        classes = training_set.classes
        first, second = (F.normalize(half, dim=-1) for half in image.chunk(2, dim=-1))
        text = F.normalize(self.class_texts(classes), dim=-1)
        return {
            "cross_entropy": self.cross_entropy(self.logits(first, text), batch, training_set),
            "cross_entropy_representation": self.cross_entropy(self.logits(second, text), batch, training_set),
            "image": cosine_distance(first, self.frozen_features(batch)),
            "text": cosine_distance(text, classes.frozen_unit),
        }

    def _deep(self, projections: Projections) -> dict[int, Prompts]:
        """Tokens (n, d) of the blocks of a tower."""
        made = projections(self.tokens).to(self.clip.dtype)  # one cast for all blocks
        return dict(zip(self.blocks, made.unbind(), strict=True))
