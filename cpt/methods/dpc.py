"""DPC: a second set of prompts, trained on hard negatives beside those of a finished run (Li et al., CVPR 2025).

Stage 1 is a finished run of another method; its prompts P stay fixed. Stage 2 trains a copy P' with an image-text
contrast, over batches extended by images of the classes that P confuses with the correct ones. Trained classes are
tested with a mixture of P' and P, others with (almost) only P. Only CoOp and PromptKD variants are public; for other
methods we do the same with all of their learned tensors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.clip.inside import Needs
from cpt.errors import CptError
from cpt.features.text import Classes
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Continued, field
from cpt.methods.base.layers import hard_negatives
from cpt.methods.base.losses import pairwise_contrast, rows
from cpt.methods.base.method import Batch, Method, TrainingSet

CONFIGS = "repo JREion/DPC, configs/trainers/SPLE"
CODE = "repo JREion/DPC, trainers/sple_coop.py"
PAPER = "Li et al., CVPR 2025"


class DPCHyperparameters(Continued):
    """The run to start from, the optimization of stage 2, and the mixture."""

    start: str = field("promptsrc", "method of stage 1", "CPT, Table 2 (equals the published PromptSRC+DPC)")
    epochs: int = field(20, "passes over the training set in stage 2", CONFIGS, ge=0)
    batch_size: int = field(4, "images per step", CONFIGS, ge=1)
    learning_rate: float = field(0.002, "peak learning rate", CONFIGS, gt=0)
    prior: Literal["none"] = field("none", "has no cross-entropy; start_hyperparameters can have a prior", PAPER)
    loss: Literal["cross_entropy"] = field("cross_entropy", "has none; start_hyperparameters can have a loss", PAPER)
    reweight: Literal["none"] = field("none", "has no cross-entropy; start_hyperparameters can have weights", PAPER)
    candidates: int = field(8, "Top-K classes per image from which negatives are taken", CONFIGS, ge=1)
    base_weight: float = field(0.2, "share of P' on trained classes (omega_b)", PAPER, gt=0, le=1)
    new_weight: float = field(0.0, "share of P' on other classes (omega_n)", PAPER, ge=0, le=1)
    parameters: Literal["parallel", "mixed", "shared"] = field(
        "parallel",
        "what is stored: P' itself; the mixture, from which P' is recovered, as published; "
        "or the published code's start, where mixture and P share their storage",
        "ours: published steps are 1/omega_b times larger",
    )


class DPC(Method):
    """Prompts beside those of a finished run."""

    name = "dpc"
    title = "DPC"
    summary = "parallel prompts trained on hard negatives beside a finished run, mixed for trained classes"
    source = f"{PAPER}; {CODE}"
    hyperparameters: ClassVar = DPCHyperparameters
    depends_on_target = True

    def __init__(self, clip: Clip, hp: DPCHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        kind = registry.get(hp.start)
        if not registry.continuable(hp.start):
            raise CptError(f"start: {hp.start!r} cannot be continued; use promptsrc or coop")
        self.parallel = kind(clip, kind.hyperparameters(**hp.start_hyperparameters), classes, generator)
        self._names = [name for name, _ in self.parallel.named_parameters()]
        for name, value in self.parallel.named_parameters():
            self.register_buffer(_stored(name), value.detach().clone())
        self._on_trained = True
        self._tuned_text: Tensor | None = None

    @classmethod
    def keeps_images(cls, hp: DPCHyperparameters) -> bool:
        """Whether the run that it starts from does."""
        kind = registry.get(hp.start)
        return kind.keeps_images(kind.hyperparameters(**hp.start_hyperparameters))

    @classmethod
    def tower_needs(cls, hp: DPCHyperparameters) -> Needs:
        """What the run that it starts from needs."""
        kind = registry.get(hp.start)
        return kind.tower_needs(kind.hyperparameters(**hp.start_hyperparameters))

    @property
    def feature_width(self) -> int:
        """Width of the features of the method that it goes on with."""
        return self.parallel.feature_width

    @property
    def scale(self) -> float:
        """Factor of cosines of the method that it goes on with."""
        return self.parallel.scale

    @property
    def test_crops(self) -> int:
        """Crops of a test image of the method that it goes on with."""
        return self.parallel.test_crops

    def reference(self, classes: Classes) -> Tensor:
        """What the method that it goes on with compares its text features with."""
        return self.parallel.reference(classes)

    def begin(self, start: dict[str, Tensor]) -> None:
        """Initialize both P and P' with the finished run's learned tensors."""
        self.parallel.load_state_dict(start)
        for name, value in self.parallel.named_parameters():
            getattr(self, _stored(name)).copy_(value.detach())

    def target(self, *, trained: bool) -> None:
        """Choose the mixture for the target."""
        self._on_trained = trained

    def tuned(self) -> dict[str, Tensor]:
        """P: the tensors of stage 1."""
        return {name: getattr(self, _stored(name)) for name in self._names}

    def prompts(self) -> dict[str, Tensor]:
        """The tensors in use: P' in training, in evaluation the mixture for the target."""
        hp, tuned = self.hp, self.tuned()
        stored: dict[str, Tensor] = dict(self.parallel.named_parameters())
        if hp.parameters == "parallel":
            share = hp.base_weight if self._on_trained else hp.new_weight
            return stored if self.training else _mixed(stored, tuned, share)
        used = stored if self.training or self._on_trained else _mixed(stored, tuned, hp.new_weight)
        fixed = {name: value.detach() for name, value in used.items()} if hp.parameters == "shared" else tuned
        return _recovered(used, fixed, hp.base_weight)

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) under the prompts in use."""
        return self._call(self.prompts(), "raw_text_features", classes)

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D) under the prompts in use."""
        return self._call(self.prompts(), "raw_image_features", images)

    def draw(self, batch: Batch, training_set: TrainingSet) -> Batch:
        """The batch with, after each of its images, one training image of each of its hard-negative classes.

        It waits for the device once: the pictures of the negatives that P's scores choose are read on the host.
        """
        assert batch.images is not None
        assert training_set.labels is not None
        assert training_set.take is not None
        images, labels, at = [batch.images], [], []
        extra: list[int] = []
        pools = _positions(training_set.labels)
        own = batch.labels.tolist() if batch.host_labels is None else batch.host_labels
        scores = self._scores(batch.images, training_set.classes)
        found = hard_negatives(scores, own, self.hp.candidates, batch.random)
        for i, (label, negatives) in enumerate(zip(own, found, strict=True)):
            pictures = [batch.random.choice(pools[negative]) for negative in negatives]
            at += [i, *range(len(own) + len(extra), len(own) + len(extra) + len(pictures))]
            labels += [label, *negatives]
            extra += pictures
        if extra:
            taken = training_set.take(extra, batch).images
            assert taken is not None
            images.append(taken)
        order, all_labels = (upload(np.array(values), self.clip.device) for values in (at, labels))
        shown = torch.cat(images).index_select(0, order)
        return replace(batch, images=shown, labels=all_labels, host_labels=labels)

    def losses(self, image: Tensor, batch: Batch, training_set: TrainingSet) -> dict[str, Tensor]:
        """Symmetric contrast over the batch with its hard negatives."""
        text = rows(self.text_features(training_set.classes), batch.labels)
        return {"contrast": pairwise_contrast(image, text, self.scale)}

    @torch.no_grad()
    def _scores(self, images: Tensor, classes: Classes) -> Tensor:
        """Similarities (B, K) under P."""
        if self._tuned_text is None:  # P and the trained classes never change
            self._tuned_text = self._call(self.tuned(), "text_features", classes)
        return self._call(self.tuned(), "image_features", images) @ self._tuned_text.T

    def _call(self, tensors: dict[str, Tensor], method: str, argument: Any) -> Tensor:
        named = {f"method.{name}": value for name, value in tensors.items()}
        return functional_call(_Caller(self.parallel), named, (method, argument))


class _Caller(nn.Module):
    """Lets ``functional_call`` call any function of a method."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, name: str, argument: Any) -> Tensor:
        return getattr(self.method, name)(argument)


def _stored(name: str) -> str:
    return "tuned_" + name.replace(".", "__")


def _mixed(parallel: dict[str, Tensor], tuned: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    return {name: share * value + (1 - share) * tuned[name] for name, value in parallel.items()}


def _recovered(mixed: dict[str, Tensor], tuned: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    return {name: (value - (1 - share) * tuned[name]) / share for name, value in mixed.items()}


@lru_cache(maxsize=1)
def _positions(labels: Tensor) -> list[list[int]]:
    """Positions of the training images of every class."""
    pools: list[list[int]] = [[] for _ in range(int(labels.max()) + 1)]
    for position, label in enumerate(labels.tolist()):
        pools[label].append(position)
    return pools
