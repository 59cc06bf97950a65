"""GLA: a finished run's logits beside CLIP's own, without the label prior of either (Zhu et al., NeurIPS 2023).

Nothing is trained. With l_ft the logits of the finished run, l_zs those of zero-shot CLIP and p the training prior,

    logits = l_ft / T_ft + l_zs / T_zs - log q - log p

T_zs makes CLIP's mean confidence on the training images equal to its accuracy there. q estimates the prior over labels
that CLIP took from its pretraining: the minimum of CE(l_zs / T_zs - log q) on the training images. A common factor of q
changes nothing, so q = softmax(-b) for the bias b of a convex fit, found exactly; the published solver is a switch.
No test image is used, and no validation image. p is uniform where the run's training made up for it.

On a long-tailed training set that minimum is q / p rather than q, because the images have the prior p. ``correction:
long_tailed`` minimizes CE(l_zs / T_zs - log q + log p) instead, which is the same fit with q multiplied by p.

New classes: no prior of theirs is known. They get the mean of the trained classes' corrections, which among themselves
corrects nothing: l_ft / T_ft + l_zs / T_zs.

Image and text features are [tuned; frozen], each part with unit norm before both are normalized together.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.clip.inside import Needs
from cpt.errors import CptError
from cpt.features.text import Classes
from cpt.methods.base import registry
from cpt.methods.base.class_rows import own_rows
from cpt.methods.base.hyperparameters import Starting, field
from cpt.methods.base.method import Method, TrainingSet
from cpt.metrics.widest import widest

CODE = "repo BeierZhu/GLA, trainers/gla.py"
LONG_TAIL = "repo BeierZhu/GLA, src/models/modeling.py"
PAPER = "Zhu et al., NeurIPS 2023"

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures between which the published search begins."""
SEARCHED = 1000
"""Steps after which the search has lost the temperature; where it ends, it takes a few dozen."""


class GLAHyperparameters(Starting):
    """The run to start from, and how priors and temperatures are estimated."""

    start: str = field("coop", "method of the run to start from", CODE, min_length=1)
    correction: Literal["none", "published", "long_tailed"] = field(
        "published",
        "subtract log p too; long_tailed: and take p out of the estimate of q",
        f"{LONG_TAIL}; long_tailed is ours",
    )
    solver: Literal["exact", "published"] = field(
        "exact", "the minimum, or 1000 steps of the published size, which hardly leave the uniform q", "ours"
    )
    tuned_temperature: Literal["one", "search"] = field(
        "one", "T_ft: 1, or searched on the training images as T_zs is", f"{LONG_TAIL} (few-shot code: search)"
    )


class GLA(Method):
    """Sum of tuned and zero-shot logits without their label priors."""

    name = "gla"
    title = "GLA"
    summary = "a finished run's logits plus zero-shot ones, without CLIP's label prior; nothing is trained"
    source = f"{PAPER}; {CODE}"
    family = "post_hoc"
    hyperparameters: ClassVar = GLAHyperparameters
    own_classifier = True
    needs_training_features = True
    trains = False

    correction: Tensor
    temperatures: Tensor

    def __init__(self, clip: Clip, hp: GLAHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        if not registry.continuable(hp.start):
            raise CptError(f"start: {hp.start!r} cannot be continued; use coop or promptsrc")
        kind = registry.get(hp.start)
        if kind.prompts_images and hp.tuned_temperature == "search":
            raise CptError(f"tuned_temperature: {hp.start} has image features of its own; set tuned_temperature: one")
        start: Any = kind.hyperparameters(**hp.start_hyperparameters)
        self.tuned = kind(clip, start, classes, generator)
        _fix(self.tuned)
        self._names, self._adjusted = classes.names, start.balances
        self.register_buffer("correction", torch.zeros(len(classes)))
        self.register_buffer("temperatures", torch.ones(2))

    @classmethod
    def tower_needs(cls, hp: GLAHyperparameters) -> Needs:
        """What the run that it starts from needs."""
        kind = registry.get(hp.start)
        return kind.tower_needs(kind.hyperparameters(**hp.start_hyperparameters))

    @property
    def feature_width(self) -> int:
        """Width of both parts of a feature."""
        return self.tuned.feature_width + self.clip.embed_dim

    def begin(self, start: dict[str, Tensor]) -> None:
        """Take the finished run's learned tensors."""
        self.tuned.load_state_dict(start)

    @torch.no_grad()
    def prepare(self, training_set: TrainingSet, features: Tensor | None) -> None:
        """Estimate temperatures and prior on features (N, D) of the training images."""
        assert features is not None
        assert training_set.labels is not None
        if features.is_meta:
            return  # sizes alone are asked for
        labels, classes = training_set.labels.to(features.device), training_set.classes
        frozen = self._zero_shot(F.normalize(features, dim=1), classes).to(widest(features.device))
        self.temperatures[1] = temperature(frozen, labels, 0.1)
        if self.hp.tuned_temperature == "search":
            unit = F.normalize(self.tuned.from_frozen(features), dim=1)
            tuned = self.tuned.logits(unit, self.tuned.text_features(classes))
            self.temperatures[0] = temperature(tuned.to(frozen.dtype), labels, 1.0)
        solve = exact_prior if self.hp.solver == "exact" else published_prior
        log_q = solve(frozen / self.temperatures[1], labels).log()
        log_p = torch.zeros_like(log_q)
        if self.hp.correction != "none":
            log_p = (training_set.counts / training_set.counts.sum()).log().to(frozen.dtype)
        if self.hp.correction == "long_tailed":
            log_q = (log_q + log_p).log_softmax(dim=0)
        if self._adjusted:
            log_p = torch.zeros_like(log_q)
        self.correction = -(log_q + log_p).float()

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Tuned and frozen features of images: (B, feature width)."""
        frozen = self.clip.vision(images)
        tuned = self.tuned.raw_image_features(images) if self.tuned.prompts_images else self.tuned.from_frozen(frozen)
        return torch.cat([F.normalize(tuned, dim=1), F.normalize(frozen, dim=1)], dim=1)

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Tuned and frozen features of classes: (K, feature width)."""
        return torch.cat([self.tuned.text_features(classes), classes.directions], dim=1)

    def class_logits(self, image_features: Tensor, classes: Classes) -> Tensor:
        """Logits (B, K) of features (B, feature width)."""
        sizes = [self.tuned.feature_width, self.clip.embed_dim]
        tuned, frozen = (F.normalize(part, dim=1) for part in image_features.split(sizes, dim=1))
        of_run = self.tuned.logits(tuned, self.tuned.text_features(classes)) / self.temperatures[0]
        rows = [len(self._names) if row is None else row for row in own_rows(self._names, classes.names)]
        corrections = torch.cat([self.correction, self.correction.mean(dim=0, keepdim=True)])
        chosen = corrections.index_select(0, upload(np.array(rows), corrections.device))
        return of_run + self._zero_shot(frozen, classes) / self.temperatures[1] + chosen

    def _zero_shot(self, unit: Tensor, classes: Classes) -> Tensor:
        """Logits (N, K) of CLIP without a run."""
        return self.logits(unit, classes.directions)


def _fix(method: nn.Module) -> None:
    """Make what a method learned buffers, which are saved and loaded by the same names."""
    for module in method.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, value.detach())


def temperature(logits: Tensor, labels: Tensor, threshold: float) -> float:
    """Temperature at which the mean confidence equals the accuracy, both in percent, to the threshold.

    Args:
        logits: (N, K). labels: (N,).
    """
    target = 100 * float((logits.argmax(dim=1) == labels).to(logits.dtype).mean())
    found = search(logits, target, threshold)
    return bisected(logits, target) if math.isnan(found) else found


def confidence(logits: Tensor, at: float) -> float:
    """Mean of the largest probabilities in percent at a temperature."""
    return 100 * float((logits / at).softmax(dim=1).amax(dim=1).mean())


def search(logits: Tensor, target: float, threshold: float) -> float:
    """The published search for a confidence in percent; NaN where it never ends, because it left the bracket."""
    low, high = LOWEST, HIGHEST
    for _ in range(SEARCHED):
        at_low, at_high = confidence(logits, low), confidence(logits, high)
        from_low, from_high = abs(at_low - target), abs(at_high - target)
        share = from_low / (from_low + from_high) if from_low else 0.0
        between = (1 - share) * low + share * high
        if abs(confidence(logits, between) - target) <= threshold:
            return between
        if at_high > target:
            high *= 1.1
        elif at_low < target:
            low /= 1.1
        elif from_low < from_high:
            high = between
        else:
            low = between
    return math.nan


def bisected(logits: Tensor, target: float) -> float:
    """Temperature of a confidence in percent, between a tenth and ten times the published limits."""
    low, high = math.log(LOWEST / 10), math.log(HIGHEST * 10)
    for _ in range(50):  # the confidence falls as the temperature rises
        middle = (low + high) / 2
        low, high = (middle, high) if confidence(logits, math.exp(middle)) > target else (low, middle)
    return math.exp((low + high) / 2)


def exact_prior(logits: Tensor, labels: Tensor) -> Tensor:
    """The q (K,) that minimizes CE(logits - log q), by Newton's method; every class has an image.

    There the summed probabilities of each class equal the number of its images.

    Args:
        logits: (N, K) in float64. labels: (N,).
    """
    count, classes = logits.shape
    shares = torch.bincount(labels, minlength=classes).to(logits.dtype) / count
    bias = torch.zeros_like(shares)
    ones = torch.full((classes, classes), 1 / classes, dtype=bias.dtype, device=bias.device)  # a shift costs nothing

    def loss(of: Tensor) -> float:
        return float(F.cross_entropy(logits + of, labels))

    for _ in range(100):
        found = (logits + bias).softmax(dim=1)
        gradient = found.mean(dim=0) - shares
        if float(gradient.abs().max()) < 1e-12:
            break
        curvature = torch.diag(found.mean(dim=0)) - found.T @ found / count + ones
        step, size = torch.linalg.solve(curvature, gradient), 1.0
        while size > 1e-6 and loss(bias - size * step) > loss(bias):
            size /= 2
        bias = bias - size * step
    return (-bias).softmax(dim=0)


def published_prior(logits: Tensor, labels: Tensor) -> Tensor:
    """The q (K,) that the published solver returns: 1000 steps on a Lagrangian from the uniform q.

    Args:
        logits: (N, K) in float64. labels: (N,).
    """
    count, classes = logits.shape
    rate = 1e-5 * (count / classes) / 50
    shares = torch.bincount(labels, minlength=classes).to(logits.dtype) / count
    q = torch.full_like(shares, 1 / classes)
    equality, inequality = torch.zeros_like(q[0]), torch.zeros_like(q)
    for _ in range(1000):
        gradient = (shares - (logits - q.log()).softmax(dim=1).mean(dim=0)) / q - inequality - equality
        q, equality, inequality = (
            q - rate * gradient,
            equality + rate * (1 - q.sum()),
            (inequality - rate * q).clamp(min=0),
        )
    return q
