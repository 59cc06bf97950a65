"""Methods that classify by a row of its own for each trained class.

A class without a row, that is one whose name was not trained, is scored by its frozen text feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.losses import positions
from cpt.methods.base.method import Method

CLAP_CODE = "repo jusiro/CLAP, trainers/adapters.py"
CLAP_CONFIG = "repo jusiro/CLAP, configs/trainers/SGD_lr1e-1_B256_ep300.yaml"


class ProbeHyperparameters(TrainingHyperparameters):
    """What the code of CLAP trains all its classifiers of frozen features with."""

    templates: str = field("dataset", "template set of the initial rows", CLAP_CODE)
    epochs: int = field(300, "passes over the training set", CLAP_CONFIG, ge=0)
    batch_size: int = field(256, "images per step", CLAP_CONFIG, ge=1)
    learning_rate: float = field(0.1, "peak learning rate of SGD", CLAP_CONFIG, gt=0)
    weight_decay: float = field(0.0, "L2 on all learned values, coupled (adamw: decoupled)", CLAP_CONFIG, ge=0)


class RowClassifier(Method):
    """Cosines of image features, frozen ones by default, with ``class_rows`` of trained classes and texts of others."""

    prompts_images: ClassVar[bool] = False

    def __init__(self, clip: Clip, hp: Any, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.trained = classes

    def class_rows(self) -> Tensor:
        """Rows (K, D) of the trained classes, not normalized."""
        raise NotImplementedError

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Rows (K, D) of the given classes; of those that were not trained their frozen text features."""
        rows = self.class_rows()
        if classes.names == self.trained.names:
            return rows
        own = own_rows(self.trained.names, classes.names)
        chosen = [len(rows) + k if row is None else row for k, row in enumerate(own)]
        return torch.cat([rows, self.texts(classes)])[upload(np.array(chosen), rows.device)]

    def texts(self, classes: Classes) -> Tensor:
        """What stands in for the rows (K, D) of classes that were not trained."""
        return classes.frozen


def own_rows(trained: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """Row of each class by its name, None where it was not trained; of classes of one name, the nth has the nth row."""
    left: dict[str, list[int]] = {}
    for row, name in enumerate(trained):
        left.setdefault(name, []).append(row)
    return [left[name].pop(0) if left.get(name) else None for name in names]


def membership(labels: Tensor, classes: int) -> Tensor:
    """One-hot labels (N, K) in float32."""
    return (labels.unsqueeze(1) == positions(classes, labels.device)).float()


def mean_probability(features: Tensor, text: Tensor, labels: Tensor, scale: float) -> Tensor:
    """How probable zero-shot CLIP holds each class (K,) on average over its own images.

    A class without images gets the mean of the others (repo jusiro/SS-Text, solvers/sstext.py).

    Args:
        features: (N, D). text: (K, D). labels: (N,). scale: factor of the cosines.
    """
    own = membership(labels, len(text))
    probabilities = (scale * F.normalize(features, dim=-1) @ F.normalize(text, dim=-1).T).softmax(dim=1)
    counts, sums = own.sum(dim=0), (probabilities * own).sum(dim=0)
    means, present = sums / counts.clamp(min=1), (counts > 0).float()
    return means + (1 - present) * means.sum() / present.sum()
