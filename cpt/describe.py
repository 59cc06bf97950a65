"""What a method is, as plain values: for `cpt methods`, the fairness sheet and grid.json."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from cpt.clip.backbone import Clip
from cpt.clip.features import Classes
from cpt.clip.sizes import placeholder_classes, small_clip, vit_b16
from cpt.methods import registry
from cpt.methods.base import Batch, Method, Training
from cpt.methods.hyperparameters import Continued, Hyperparameters, resolve
from cpt.passes import Passes
from cpt.seeds import torch_stream

PROTOCOLS = ("base_to_new", "all_classes", "few_shot")
BATCH, CLASSES = 4, 40
"""Images and classes of the step that is measured; more classes than a batch and its negatives can hold."""


def facts(name: str) -> dict[str, Any]:
    """Return title, source, summary and the hyperparameters of a method: {name: description, source, default}."""
    kind = registry.get(name)
    fields = kind.hyperparameters.model_fields
    return {
        "title": kind.title,
        "summary": kind.summary,
        "source": kind.source,
        "reconstruction": kind.reconstruction,
        "protocol_defaults": kind.hyperparameters.protocol_defaults,
        "dataset_defaults": kind.hyperparameters.dataset_defaults,
        "hyperparameters": {
            field: {
                "description": info.description,
                "source": info.json_schema_extra["source"],  # type: ignore[index, call-overload]
                "default": info.default,
            }
            for field, info in fields.items()
        },
    }


def published(name: str, protocol: str, dataset: str = "") -> Hyperparameters:
    """Return a method's hyperparameters without an experiment's overrides, of a run that it starts from too."""
    hp = resolve(registry.get(name).hyperparameters, protocol, dataset)
    if isinstance(hp, Continued):
        start = published(hp.start, protocol, dataset)
        given = {"start_hyperparameters": start.model_dump(), "templates": start.templates}  # as cpt.grid does
        hp = hp.model_copy(update=given)
    return hp


def learned_values(name: str, protocol: str, dataset: str = "") -> int:
    """Return how many values a method learns on ViT-B/16 with its published hyperparameters."""
    return _method(name, published(name, protocol, dataset), *_sized("meta")).learnable_parameters()


def encoded_per_step(name: str) -> dict[str, float]:
    """Return what one training step of a method encodes, by kind of ``cpt.passes``, measured on a small CLIP.

    The step has 4 images of 4 of 40 classes, without cached features.
    """
    clip, classes = _sized("cpu")
    method = _method(name, published(name, "base_to_new"), clip, classes)
    images = torch.randn(2 * CLASSES, 3, *clip.image_size, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(2 * CLASSES) % CLASSES
    training = Training(
        classes,
        torch.full((CLASSES,), 2.0),
        clusters=torch.arange(CLASSES) % 4,
        descriptions=classes.directions.expand(3, -1, -1),
        labels=labels,
        take=lambda positions, _: Batch(images[list(positions)], None, labels[list(positions)]),
    )
    batch = Batch(images[:BATCH], None, labels[:BATCH], images[:BATCH] if method.views == 2 else None)
    method.losses(batch, training)  # what is computed once in a training is not counted
    passes = Passes(clip)
    with passes.counting():
        method.losses(batch, training)
    return passes.per_step(1)


def _method(name: str, hp: Hyperparameters, clip: Clip, classes: Classes) -> Method:
    return registry.get(name)(clip, hp, classes, torch_stream(0, "unused"))


@cache
def _sized(device: str) -> tuple[Clip, Classes]:
    clip = vit_b16() if device == "meta" else small_clip()
    return clip, placeholder_classes(clip, CLASSES)
