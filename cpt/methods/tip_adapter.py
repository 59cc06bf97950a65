"""Tip-Adapter: a cache of the training images beside the zero-shot classifier (Zhang et al., ECCV 2022).

Logits are ``s f.t_c + alpha sum over images i of class c of exp(-beta (1 - f.k_i))``. The keys k_i are the unit
features of the training images, f is a unit image feature, t_c a unit text feature. Nothing is trained. The published
code averages the features of 10 augmented passes into the keys, here they are from one pass without augmentation. A
class that was not trained has no images in the cache and keeps its zero-shot logit, like one without training images.

alpha and beta are chosen on validation images: one variant for each pair in an experiment with ``evaluate_on: val``
(docs/switches.md). The published code searches them on the test images for ImageNet.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.features.text import Classes
from cpt.methods.base.class_rows import own_rows
from cpt.methods.base.hyperparameters import Hyperparameters, field
from cpt.methods.base.losses import positions
from cpt.methods.base.method import Method, TrainingSet

CODE = "repo gaopengcuhk/Tip-Adapter"
CONFIGS = f"{CODE}, configs"


class TipAdapterHyperparameters(Hyperparameters):
    """The cache beside the zero-shot classifier."""

    dataset_defaults: ClassVar[dict] = {
        "dtd": {"alpha": 2.0},
        "eurosat": {"alpha": 2.0},
        "fgvc_aircraft": {"alpha": 5.0},
    }

    templates: str = field("dataset", "template set of the class features", f"{CODE}, utils.py")
    alpha: float = field(1.17, "factor of the cache's logits", f"{CONFIGS}/imagenet.yaml", ge=0)
    beta: float = field(1.0, "how fast a key's weight falls with its distance", f"{CONFIGS}/imagenet.yaml", gt=0)
    mean_values: bool = field(
        False, "divide what the images of a class contribute by their number", "switch; published: their sum"
    )


class TipAdapter(Method):
    """The zero-shot classifier plus similarities to cached features of the training images."""

    name = "tip_adapter"
    title = "Tip-Adapter"
    summary = "zero-shot classifier plus similarities to cached training images"
    source = f"Zhang et al., ECCV 2022; {CODE}, main.py"
    family = "adapters"
    hyperparameters: ClassVar = TipAdapterHyperparameters
    prompts_images = False
    own_classifier = True
    needs_training_features = True
    sized_by_training = ("keys", "labels")
    trains = False

    keys: Tensor
    labels: Tensor

    def __init__(self, clip: Clip, hp: TipAdapterHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.trained = classes.names
        self.hold(classes.frozen.new_zeros(0, clip.embed_dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long, device=classes.frozen.device))

    def hold(self, keys: Tensor) -> None:
        """Make ``keys`` an attribute of the module."""
        self.register_buffer("keys", keys)

    def prepare(self, training_set: TrainingSet, features: Tensor | None) -> None:
        """Fill the cache: keys (N, D) and labels (N,)."""
        assert features is not None
        assert training_set.labels is not None
        self.keys.data = F.normalize(features, dim=-1)
        self.labels.data = training_set.labels.to(features.device)

    def text_features(self, classes: Classes) -> Tensor:
        """Unit-norm mean (K, D) of the unit-norm features of all templates."""
        return classes.directions

    def class_logits(self, image_features: Tensor, classes: Classes) -> Tensor:
        """Logits (B, K) of unit-norm image features (B, D)."""
        affinity = torch.exp(-self.hp.beta * (1 - image_features @ self.keys.T))  # (B, N)
        return super().class_logits(image_features, classes) + self.hp.alpha * affinity @ self.values(classes)

    def values(self, classes: Classes) -> Tensor:
        """What every key contributes to every class (N, K): 1 to its own; with ``mean_values`` one by their number."""
        if classes.names == self.trained:
            rows = positions(len(classes), self.labels.device)
        else:
            own = [-1 if row is None else row for row in own_rows(self.trained, classes.names)]
            rows = upload(np.array(own), self.labels.device)
        values = (self.labels.unsqueeze(1) == rows).float()
        return values / values.sum(dim=0).clamp(min=1) if self.hp.mean_values else values
