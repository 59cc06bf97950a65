"""CoPrompt: MaPLe with adapters, kept consistent with frozen CLIP on descriptions and on another view of each image
(Roy and Etemad, ICLR 2024).
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import field
from cpt.methods.base.layers import Adapter
from cpt.methods.base.losses import cosine_distance
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.maple import MaPLe, MaPLeHyperparameters

CONFIG = "repo ShuvenduRoy/CoPrompt, configs/trainers/coprompt.yaml"
CODE = "repo ShuvenduRoy/CoPrompt, trainers/coprompt.py"


def _setting(depth: int, prompts: int, weight: float, epochs: int = 8) -> dict[str, float]:
    return {"depth": depth, "prompts": prompts, "consistency_weight": weight, "epochs": epochs}


class CoPromptHyperparameters(MaPLeHyperparameters):
    """The published settings per dataset; other datasets and all_classes use those of ImageNet."""

    protocol_defaults: ClassVar[dict] = {}
    dataset_defaults: ClassVar[dict] = {  # keyed by the trained dataset, not by the tested one
        "caltech101": _setting(12, 4, 4.0),
        "oxford_pets": _setting(12, 2, 0.1),
        "stanford_cars": _setting(12, 4, 4.0),
        "oxford_flowers": _setting(9, 4, 8.0),
        "food101": _setting(9, 4, 0.5, 5),
        "fgvc_aircraft": _setting(9, 4, 2.0),
        "dtd": _setting(12, 2, 8.0),
        "eurosat": _setting(12, 2, 0.1),
        "ucf101": _setting(12, 4, 2.0),
    }

    epochs: int = field(8, "passes over the training set (Food101: 5)", CONFIG, ge=0)
    batch_size: int = field(4, "images per step", CONFIG, ge=1)
    learning_rate: float = field(0.0035, "peak learning rate", CONFIG, gt=0)
    prompts: int = field(4, "prompts per block and tower (2 for Pets, DTD, EuroSAT)", CONFIG, ge=1)
    depth: int = field(12, "prompted blocks of both towers (9 for Flowers, Food101, Aircraft)", CONFIG, ge=1)
    consistency_weight: float = field(8.0, "weight W of the consistency terms, per dataset", CONFIG, ge=0)
    text_adapter: float = field(0.2, "share of the adapter in the text feature", CODE, ge=0, le=1)
    image_adapter: float = field(0.1, "share of the adapter in the image feature", CODE, ge=0, le=1)
    reduction: int = field(4, "width of the adapters: joint width / this", CODE, ge=1)
    descriptions: str = field(
        "imagenet", "template set that stands in where a dataset has no file of class descriptions", "ours"
    )
    distance: Literal["cosine", "mse"] = field("cosine", "distance of the consistency terms", CONFIG)


class CoPrompt(MaPLe):
    """MaPLe's prompts with two adapters, trained with cross-entropy and consistency losses."""

    name = "coprompt"
    title = "CoPrompt"
    summary = "MaPLe with adapters, consistent with frozen features of class descriptions and a second view"
    source = f"Roy and Etemad, ICLR 2024; {CODE}"
    hyperparameters: ClassVar = CoPromptHyperparameters
    uses_frozen_images = True
    needs_descriptions = True
    augmentation = "rand_augment"
    views = 2

    def __init__(self, clip: Clip, hp: CoPromptHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.adapter_text = Adapter(clip.embed_dim, hp.reduction, hp.text_adapter, generator)
        self.adapter_image = Adapter(clip.embed_dim, hp.reduction, hp.image_adapter, generator)

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Adapted text features (K, D)."""
        return self.adapter_text(super().raw_text_features(classes))

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Adapted image features (B, D)."""
        return self.adapter_image(super().raw_image_features(images))

    def weights(self) -> dict[str, float]:
        """The same weight for both modalities."""
        return {"consistency_text": self.hp.consistency_weight, "consistency_image": self.hp.consistency_weight}

    def draw(self, batch: Batch, training_set: TrainingSet) -> Batch:
        """One of the descriptions, for all classes."""
        assert training_set.descriptions is not None
        chosen = np.array([batch.random.randint(0, len(training_set.descriptions) - 1)])
        return replace(batch, drawn=upload(chosen, self.clip.device))

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Cross-entropy on the first view; distances to a random description and to the frozen second view."""
        assert training_set.descriptions is not None
        text = self.text_features(training_set.classes)
        assert batch.drawn is not None
        description = training_set.descriptions.index_select(0, batch.drawn).squeeze(0)
        distance = cosine_distance if self.hp.distance == "cosine" else F.mse_loss
        return {
            "cross_entropy": self.cross_entropy(self.logits(image, text), batch, training_set),
            "consistency_text": distance(text, description),
            "consistency_image": distance(image, self.frozen_features(batch)),
        }
