"""Facts about methods as plain values, for `cpt methods`, the fairness sheet and grid.json."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from cpt.clip.backbone import Clip
from cpt.clip.passes import Passes
from cpt.features.text import Classes
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Hyperparameters, Starting, resolve
from cpt.methods.base.method import Batch, Method
from cpt.methods.base.sizes import placeholder_classes, placeholder_training_set, prepare, small_clip, vit_b16
from cpt.seeds import torch_stream

PROTOCOLS = ("base_to_new", "all_classes", "few_shot")
BATCH, CLASSES = 4, 40
"""Images and classes of the measured step; there are more classes than a batch and its negatives can hold."""


def facts(name: str) -> dict[str, Any]:
    """Return title, source, summary and the hyperparameters of a method: {name: description, source, default}."""
    kind = registry.get(name)
    return {
        "title": kind.title,
        "summary": kind.summary,
        "source": kind.source,
        "reconstruction": kind.reconstruction,
        "protocol_defaults": kind.hyperparameters.protocol_defaults,
        "dataset_defaults": kind.hyperparameters.dataset_defaults,
        "hyperparameters": hyperparameters(kind.hyperparameters),
    }


def hyperparameters(kind: type[Hyperparameters]) -> dict[str, dict[str, Any]]:
    """Return description, source and default of every field."""
    return {
        field: {
            "description": info.description,
            "source": info.json_schema_extra["source"],  # type: ignore[index, call-overload]
            "default": info.default,
        }
        for field, info in kind.model_fields.items()
    }


def published(name: str, protocol: str, dataset: str = "") -> Hyperparameters:
    """Return a method's hyperparameters without an experiment's overrides, with those of the run it starts from."""
    hp = resolve(registry.get(name).hyperparameters, protocol, dataset)
    if isinstance(hp, Starting):
        start = published(hp.start, protocol, dataset)
        given = {
            "start_hyperparameters": start.model_dump(),
            "templates": start.templates,
        }  # as cpt.experiment.variants does
        hp = hp.model_copy(update=given)
    return hp


def learned_values(name: str, protocol: str, dataset: str = "") -> int:
    """Return the number of values that a method learns on ViT-B/16 with its published hyperparameters."""
    return _method(name, published(name, protocol, dataset), *_sized("meta")).learnable_parameters()


def stored_values(name: str, hp: Hyperparameters) -> int:
    """Return the number of values in prompts.safetensors of a finished run of a method, on ViT-B/16."""
    return sum(value.numel() for value in _method(name, hp, *_sized("meta")).state_dict().values())


def encoded_per_step(name: str) -> dict[str, float]:
    """Return the numbers of texts and images that a training step encodes with published hyperparameters.

    The step has 4 images of 4 of 40 classes, without cached features.
    """
    return encoded(name, published(name, "base_to_new"), CLASSES, BATCH)


def encoded(name: str, hp: Hyperparameters, count: int, batch_size: int) -> dict[str, float]:
    """Return the numbers that one training step encodes, by kind of ``cpt.clip.passes``, measured on a small CLIP.

    Args:
        name: the method.
        hp: its hyperparameters.
        count: number of trained classes; each has at least two images.
        batch_size: images of the step, without cached features.
    """
    clip, classes = _sized("cpu", count)
    method = _method(name, hp, clip, classes)
    total = max(2 * count, batch_size)
    images = torch.randn(total, 3, *clip.image_size, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(total) % count

    def take(positions: Sequence[int], _: Batch) -> Batch:
        return Batch(images[list(positions)], None, labels[list(positions)])

    training_set = placeholder_training_set(type(method), classes, labels, take)
    first = images[:batch_size]
    batch = Batch(first, None, labels[:batch_size], first if method.views == 2 else None)
    method.step(method.draw(batch, training_set), training_set)  # not counted: it computes what is needed only once
    passes = Passes(clip)
    with passes.counting():
        method.step(method.draw(batch, training_set), training_set)
    return passes.per_step(1)


@torch.no_grad()
def encoded_per_image(name: str, hp: Hyperparameters, count: int) -> dict[str, float]:
    """Return the numbers encoded for one test image of ``count`` classes, beyond its cached frozen feature."""
    clip, classes = _sized("cpu", count)
    method, kind = _method(name, hp, clip, classes).eval(), registry.get(name)
    passes = Passes(clip)
    with passes.counting():
        if kind.image_conditioned:
            method.class_logits(torch.ones(1, clip.embed_dim), classes)
        elif kind.prompts_images:
            method.image_features(torch.zeros(method.test_crops, 3, *clip.image_size))
    return passes.per_step(1)


def _method(name: str, hp: Hyperparameters, clip: Clip, classes: Classes) -> Method:
    """A method that is ready to train, on two images of every class."""
    method = registry.get(name)(clip, hp, classes, torch_stream(0, "unused"))
    prepare(method, placeholder_training_set(type(method), classes, torch.arange(2 * len(classes)) % len(classes)))
    return method


@cache
def _sized(device: str, count: int = CLASSES) -> tuple[Clip, Classes]:
    clip = _clip(device)
    return clip, placeholder_classes(clip, count)


@cache
def _clip(device: str) -> Clip:
    return vit_b16() if device == "meta" else small_clip()
