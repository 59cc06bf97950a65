"""Nearest class mean: cosines of an image with the mean features of trained classes; new classes keep their texts."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.class_rows import RowClassifier
from cpt.methods.base.method import TrainingSet

from .means import class_means


class NearestMean(RowClassifier):
    """Rows are class means of unit image features."""

    name = "nearest_mean"
    title = "Nearest mean"
    summary = "the nearest mean feature of the trained classes; nothing is learned"
    source = "the example of docs/adding.md"
    needs_training_features = True
    trains = False

    means: Tensor

    def __init__(self, clip: Clip, hp: Any, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.register_buffer("means", torch.zeros_like(classes.frozen))

    def prepare(self, training_set: TrainingSet, features: Tensor | None) -> None:
        """Set the means (K, D)."""
        assert features is not None
        assert training_set.labels is not None
        labels = training_set.labels.to(features.device)
        self.means.copy_(class_means(F.normalize(features, dim=-1), labels, len(training_set.classes)))

    def class_rows(self) -> Tensor:
        """The means (K, D)."""
        return self.means
