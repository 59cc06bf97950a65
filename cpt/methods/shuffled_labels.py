"""A control that must fail: a linear probe that learns labels which say nothing about the images.

In every step each image gets the label of some training image, drawn anew. The rows start as the class texts turned by
a random matrix, as are the texts that score classes which were not trained: what CLIP knows of the names is gone. On
test images the accuracy is at chance, one over the number of classes if these have equally many; anything above it
would be a fault of the pipeline.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.features.text import Classes
from cpt.methods.base.class_rows import ProbeHyperparameters, RowClassifier
from cpt.methods.base.hyperparameters import field
from cpt.methods.base.losses import kept
from cpt.methods.base.method import Batch, TrainingSet

OURS = "ours: a control"


class ShuffledLabelsHyperparameters(ProbeHyperparameters):
    """Those of the linear probes."""

    prior: Literal["none"] = field("none", "labels without their images have no long tail to mend", OURS)
    loss: Literal["cross_entropy"] = field("cross_entropy", "of the drawn labels", OURS)
    reweight: Literal["none"] = field("none", "has no effect: see prior", OURS)
    sampler: Literal["random"] = field("random", "has no effect: see prior", OURS)


class ShuffledLabels(RowClassifier):
    """Cross-entropy of a cosine classifier of frozen image features with labels of other images."""

    name = "shuffled_labels"
    title = "Shuffled labels"
    summary = "control that must fail: a linear probe on labels drawn without looking at the images"
    source = OURS
    family = "controls"
    control = True
    hyperparameters: ClassVar = ShuffledLabelsHyperparameters

    turn: Tensor

    def __init__(
        self, clip: Clip, hp: ShuffledLabelsHyperparameters, classes: Classes, generator: torch.Generator
    ) -> None:
        super().__init__(clip, hp, classes, generator)
        turn = torch.randn(clip.embed_dim, clip.embed_dim, generator=generator) / clip.embed_dim**0.5
        self.register_buffer("turn", turn.to(classes.frozen.device))
        self.rows = nn.Parameter(self.texts(classes).clone())

    def class_rows(self) -> Tensor:
        """The learned rows (K, D)."""
        return self.rows

    def texts(self, classes: Classes) -> Tensor:
        """Turned text features (K, D)."""
        return classes.frozen @ self.turn

    def draw(self, batch: Batch, training_set: TrainingSet) -> Batch:
        """The batch with a label for each image, that of any training image."""
        assert training_set.labels is not None
        chosen = [batch.random.randrange(len(training_set.labels)) for _ in range(len(batch.labels))]
        return replace(batch, drawn=upload(_on_host(training_set.labels)[chosen], self.clip.device))

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Cross-entropy with the drawn labels."""
        assert batch.drawn is not None
        return {"shuffled": F.cross_entropy(self.class_logits(image, training_set.classes), batch.drawn)}


@kept
def _on_host(labels: Tensor) -> np.ndarray:
    """The labels where the host can read them."""
    return labels.cpu().numpy()
