"""A toy world in which every method of the registry can be made, trained and tested with its published defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import open_clip
import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Starting
from cpt.methods.base.method import Batch, Method, Step, TrainingSet
from cpt.seeds import torch_stream
from cpt.training.checkpoint import CheckpointFile
from cpt.training.loop import Loop
from tests.helpers.golden_clip import classes_of, clip_of

CLASSES = ("tench", "golden retriever", "Boeing 737-300", "pistol shrimp", "hard-leaved pocket orchid")
OTHERS = ("trombone", "air-plane", "sea horse", "king penguin", "A380", "fiddler crab", "moth")
THOUSAND = tuple(f"{word} {i}" for word in ("red", "blue", "old", "new", "big") for i in range(200))
TEMPLATES = ("a photo of a {}.", "a drawing of the {}.")
IMAGE = 16


@cache
def model() -> open_clip.CLIP:
    """A random CLIP of open_clip: twelve blocks a tower, all three widths different, logit scale 30."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = open_clip.CLIP(
            embed_dim=80,
            vision_cfg={"image_size": IMAGE, "patch_size": 8, "width": 48, "layers": 12, "head_width": 16},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 12},
            quick_gelu=True,
        )
        for parameter in made.parameters():  # away from the initial values, where many terms are zero or one
            parameter.data += 0.05 * torch.randn_like(parameter)
    made.logit_scale.data.fill_(math.log(30.0))
    return made.eval().requires_grad_(False)


def random_clip() -> Clip:
    """Our towers around the random CLIP, with tensors of their own."""
    return clip_of(model(), "contract", (IMAGE, IMAGE))


clip = cache(random_clip)


@cache
def classes(names: Sequence[str]) -> Classes:
    """Classes under the shared CLIP; the end of the dataset's template differs from that of ``a photo of a {}.``"""
    return classes_of(clip(), list(names), list(TEMPLATES), dataset_template="a photo of a {}, a type of thing.")


def images(positions: Sequence[int], view: int = 0) -> Tensor:
    """Images of training positions: functions of position and view alone."""
    stream = (torch.Generator().manual_seed(1000 * view + int(position)) for position in positions)
    return torch.stack([torch.randn(3, IMAGE, IMAGE, generator=generator) for generator in stream])


class Toy:
    """A method with its defaults, its training set, and batches.

    Args:
        name: the method.
        names: the trained classes.
        seed: of initial values, batches and steps.
        counts: training images per class; default: a long tail.
        on: the backbone; default: the shared one.
        changes: hyperparameters; those that the method does not have are left out.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str] = CLASSES,
        *,
        seed: int = 0,
        counts: Sequence[int] | None = None,
        on: Clip | None = None,
        **changes: Any,
    ) -> None:
        self.kind, self.seed, self.clip = registry.get(name), seed, on or clip()
        fields = self.kind.hyperparameters.model_fields
        self.hp: Any = self.kind.hyperparameters(**{key: value for key, value in changes.items() if key in fields})
        self.classes, number = classes(tuple(names)), len(names)
        self.method: Method = self.kind(self.clip, self.hp, self.classes, torch_stream(seed, "initial prompts"))
        if isinstance(self.hp, Starting):
            self.method.begin(finished(self.hp, self.classes, self.clip))
        long_tail = [1 + 6 * (number - 1 - k) // max(number - 1, 1) for k in range(number)]
        numbers = torch.tensor(long_tail if counts is None else list(counts))
        self.labels = torch.arange(number).repeat_interleave(numbers)
        described = unit(torch.randn(3, number, self.clip.embed_dim, generator=torch.Generator().manual_seed(7)))
        self.training = TrainingSet(
            self.classes,
            numbers.float(),
            clusters=torch.arange(number) // 2 if self.kind.needs_clusters else None,
            descriptions=described if self.kind.needs_descriptions else None,
            labels=self.labels,
            take=lambda positions, epoch: self.at(positions, view=self.kind.views),
            new_classes=classes(OTHERS[:3]) if self.kind.needs_new_classes else None,
        )
        self.method.prepare(self.training, self.frozen() if self.kind.needs_training_features else None)

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """Raw frozen features (N, D) of all training images."""
        return self.clip.vision(images(range(len(self.labels))))

    def at(self, positions: Sequence[int], step: int = 0, view: int = 0, *, cached: bool = False) -> Batch:
        """The training images at positions, with a second view for methods that take two.

        Args:
            cached: give the frozen features instead, as a training without augmentation does.
        """
        shown = images(positions, view)
        with torch.no_grad():
            features = self.clip.vision(shown) if cached else None
        second = images(positions, view + 1) if self.kind.views == 2 and not cached else None
        needed = None if cached and not self.kind.prompts_images else shown
        random, labels = Random(f"{self.seed} {step}"), self.labels[list(positions)]
        return Batch(needed, features, labels, second, host_labels=labels.tolist(), random=random)

    def batch(self, step: int = 0, size: int = 6) -> Batch:
        """The batch of a step."""
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(100 * self.seed + step))
        return self.at(order[:size].tolist(), step)

    def step(self, batch: Batch) -> Step:
        """What the method computes for a batch."""
        return self.method.step(self.method.draw(batch, self.training), self.training)

    def loss(self, step: int = 0, size: int = 6) -> Tensor:
        """Loss of a step's batch."""
        return self.method.total(self.step(self.batch(step, size)).losses)

    def gradients(self, step: int = 0) -> dict[str, Tensor]:
        """Gradients of a step's loss by the name of the learned tensor."""
        self.method.zero_grad()
        self.loss(step).backward()
        return {name: p.grad.clone() for name, p in self.method.named_parameters() if p.grad is not None}

    def train(self, epochs: int = 1, checkpoint: Path | None = None, stop: tuple[int, int] | None = None) -> Loop:
        """Train by the loop of ``cpt train``: two batches of three images an epoch.

        Args:
            checkpoint: where an unfinished training is kept after every step.
            stop: epoch and step before which the training is interrupted.
        """
        self.method.hp = self.hp.model_copy(update={"epochs": epochs})
        kept = CheckpointFile(checkpoint, "key", 0.0)
        loop = Loop(self.method, self.training, Batches(self, stop), kept, lambda _: None)  # type: ignore[arg-type]
        loop.run()
        return loop

    def scores(self, shown: Tensor, of: Classes | None = None, *, trained: bool = True) -> Tensor:
        """Logits of images, computed as ``cpt.evaluation.predict`` does."""
        self.method.eval()
        with torch.no_grad():
            self.method.target(trained=trained)
            features = self.method.image_features(shown)
            if self.method.own_classifier:
                found = self.method.class_logits(features.float(), of or self.classes)
            else:
                found = self.method.logits(features.float(), self.method.text_features(of or self.classes).float())
        self.method.train()
        return found

    def shaken(self) -> Toy:
        """Move every learned tensor, so that no two parts of a method agree by their initial values."""
        shake(self.method)
        return self


class InterruptedHereError(Exception):
    """A training was killed here."""


class Batches:
    """The batches of a training: what the loop needs of ``cpt.training.batches.Batches``."""

    def __init__(self, toy: Toy, stop: tuple[int, int] | None) -> None:
        self.toy, self.stop, self.labels = toy, stop, toy.labels

    def steps(self) -> int:
        """Batches of an epoch."""
        return 2

    def take(self, positions: Sequence[int], epoch: int) -> Batch:
        """Further training images."""
        return self.toy.at(positions, view=self.toy.kind.views)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a number on."""
        for step in range(first, self.steps()):
            if self.stop == (epoch, step):
                raise InterruptedHereError
            yield self.toy.batch(10 * epoch + step, 3)


def finished(hp: Any, of: Classes, on: Clip) -> dict[str, Tensor]:
    """Learned tensors of a run as a method continues it."""
    kind = registry.get(hp.start)
    method = kind(on, kind.hyperparameters(**hp.start_hyperparameters), of, torch_stream(99, "initial prompts"))
    shake(method)
    return {name: value.detach().clone() for name, value in method.state_dict().items()}


@torch.no_grad()
def shake(method: Method, size: float = 0.02) -> None:
    """Add normal values to every learned tensor."""
    generator = torch.Generator().manual_seed(5)
    for parameter in method.parameters():
        parameter += size * torch.randn(parameter.shape, generator=generator)


def unit(x: Tensor) -> Tensor:
    """Rows of norm one."""
    return x / x.norm(dim=-1, keepdim=True)


def frozen_weights(of: Clip) -> dict[str, Tensor]:
    """All tensors of both towers."""
    towers = {"text": of.text, "vision": of.vision}
    return {f"{name}.{key}": t for name, tower in towers.items() for key, t in tower.state_dict().items()}
