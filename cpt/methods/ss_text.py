"""SS-Text and SS-Text+: a classifier in closed form (Silva-Rodríguez et al., MICCAI 2025).

A trained class has the row ``w_c = t_c + s / (N lambda_c) sum of f``, over its images' features f, of N in all; the
text feature t_c and all f are unit vectors, as the published encoders give them, s is the factor of the logits.
Nothing is trained. With ``lambda_c = 1/n_c`` for n_c images of the class, large classes get a larger share of their
images: n_c/N. A class without images keeps t_c, and one that was not trained is scored by its text feature.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.class_rows import RowClassifier, mean_probability, membership
from cpt.methods.base.hyperparameters import Hyperparameters, field
from cpt.methods.base.method import TrainingSet

CODE = "repo jusiro/SS-Text, solvers/sstext.py"
LEAST, FIXED = 1e-3, 0.1
"""Least lambda, so that it is that of 1000 images at most; and the fixed one."""

Rule = Literal["uniform", "shots", "zero_shot", "fixed"]


class SSTextHyperparameters(Hyperparameters):
    """The weight of the images against the texts."""

    templates: str = field("dataset", "template set of the class features", CODE)
    text_weight: Rule = field(
        "uniform",
        "lambda_c: 1/N (SS-Text); 1/n_c (SS-Text+); the class's mean zero-shot probability on its images; or 0.1",
        CODE,
    )
    repel: bool = field(False, "move the rows away from their mean afterwards (SS-Text+)", CODE)


class SSText(RowClassifier):
    """Class texts plus a weighted mean of the class's image features."""

    name = "ss_text"
    title = "SS-Text"
    summary = "class texts plus weighted sums of the classes' image features, in closed form"
    source = f"Silva-Rodríguez et al., MICCAI 2025; {CODE}"
    family = "probes"
    hyperparameters: ClassVar = SSTextHyperparameters
    needs_training_features = True
    trains = False

    rows: Tensor

    def __init__(self, clip: Clip, hp: SSTextHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.register_buffer("rows", self.texts(classes).clone())

    def prepare(self, training_set: TrainingSet, features: Tensor | None) -> None:
        """Compute the rows (K, D)."""
        assert features is not None
        assert training_set.labels is not None
        text, labels = self.texts(training_set.classes), training_set.labels.to(features.device)
        unit = F.normalize(features, dim=-1)
        self.rows.copy_(solve(text, unit, labels, self.scale, self.hp.text_weight, repel=self.hp.repel))

    def class_rows(self) -> Tensor:
        """The rows (K, D)."""
        return self.rows

    def texts(self, classes: Classes) -> Tensor:
        """Unit text features (K, D)."""
        return classes.directions


def solve(text: Tensor, features: Tensor, labels: Tensor, scale: float, rule: Rule, *, repel: bool) -> Tensor:
    """Rows (K, D) of the classes.

    Args:
        text: (K, D). features: (N, D). labels: (N,). scale: factor of the logits.
        rule: of lambda, as in the hyperparameters.
        repel: subtract from every row the direction of twice the row minus the mean of all.
    """
    own, count = membership(labels, len(text)), len(features)
    counts = own.sum(dim=0)
    if rule == "zero_shot":
        weight = mean_probability(features, text, labels, scale)
    elif rule == "shots":
        weight = 1 / counts.clamp(min=1)
    else:
        weight = torch.full_like(counts, 1 / count if rule == "uniform" else FIXED)
    found = text + scale / (count * weight.clamp(min=LEAST)).unsqueeze(1) * (own.T @ features)
    return found - F.normalize(2 * found - found.mean(dim=0), dim=-1) if repel else found
