"""A control that looks at no image: every image belongs to the largest trained class.

Logits are the logarithms of the trained classes' shares of the training images. A class that was not trained has the
share of an average one, so new classes alone are all equally likely. Ties go to the class that comes first in label
order: on balanced test images the accuracy is one over the number of classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.features.text import Classes
from cpt.methods.base.class_rows import own_rows
from cpt.methods.base.hyperparameters import Hyperparameters
from cpt.methods.base.losses import positions
from cpt.methods.base.method import Method, TrainingSet

TIE = 1e-6
"""By how much the logit of each class is below that of the one before."""


class PriorOnly(Method):
    """The frequencies of the trained classes, for every image."""

    name = "prior_only"
    title = "Prior only"
    summary = "control: the frequencies of the trained classes, whatever the image shows"
    source = "ours: a control"
    family = "controls"
    control = True
    prompts_images = False
    own_classifier = True
    needs_training_features = True  # for a run on every training set; it only counts the images
    trains = False

    shares: Tensor

    def __init__(self, clip: Clip, hp: Hyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.trained = classes.names
        self.register_buffer("shares", torch.full_like(classes.frozen[:, 0], 1 / len(classes)))

    def prepare(self, training_set: TrainingSet, features: Tensor | None) -> None:
        """Set the shares (K,)."""
        self.shares.copy_(training_set.counts / training_set.counts.sum())

    def text_features(self, classes: Classes) -> Tensor:
        """Unit-norm mean (K, D) of the unit-norm features of all templates, which no prediction depends on."""
        return classes.directions

    def class_logits(self, image_features: Tensor, classes: Classes) -> Tensor:
        """Logits (B, K), the same for every image."""
        count = len(self.trained)
        rows = [count if row is None else row for row in own_rows(self.trained, classes.names)]
        shares = torch.cat([self.shares, torch.full_like(self.shares[:1], 1 / count)])
        logits = shares[upload(np.array(rows), shares.device)].log()
        logits = logits - TIE * positions(len(classes), shares.device)
        return logits.expand(len(image_features), -1)
