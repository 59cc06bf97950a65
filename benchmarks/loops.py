"""Every method's training loop on random weights and images of noise: what its steps launch, wait for and take."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.features.text import Classes
from cpt.methods.base import registry
from cpt.methods.base.method import Batch
from cpt.methods.base.sizes import placeholder_training_set, prepare
from cpt.training.checkpoint import CheckpointFile
from cpt.training.graphs import Record
from cpt.training.loop import Loop

TRAINED = [name for name in registry.names() if registry.get(name).trains]
LEARNING_RATE = 1e-5
"""Small, so that hundreds of steps on noise stay finite."""


class Steps:
    """A method's loop and batches for it, the same ones on every device.

    Args:
        name: the method, with its default hyperparameters.
        clip: the frozen towers.
        classes: the K classes.
        size: images of a batch.
        record: captures steps as CUDA graphs, see ``cpt.training.loop``.
        log: gets the loop's lines.
    """

    def __init__(
        self,
        name: str,
        clip: Clip,
        classes: Classes,
        size: int,
        record: Record | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.kind, self.clip, self.size = registry.get(name), clip, size
        self.stream, device = torch.Generator().manual_seed(0), clip.device
        labels = torch.arange(len(classes)).repeat(2)
        training_set = placeholder_training_set(self.kind, classes, labels)
        method = self.kind(clip, self.kind.hyperparameters(), classes, self.stream).to(device)
        prepare(method, training_set)

        def take(positions: Any, _: Batch) -> Batch:
            return Batch(self._images(len(positions)), None, upload(labels[list(positions)].numpy(), device))

        batches: Any = SimpleNamespace(take=take)
        self.loop = Loop(method, training_set, batches, CheckpointFile(None, "", 0), log, record)
        self.loop.optimizer.learning_rate = LEARNING_RATE

    def batch(self, step: int) -> Batch:
        """A batch of noise; its labels are any of the K."""
        labels = torch.randint(len(self.loop.training_set.classes), (self.size,), generator=self.stream)
        second = self._images(self.size) if self.kind.views == 2 else None
        images, known = self._images(self.size), labels.tolist()
        labels = upload(labels.numpy(), self.clip.device)
        return Batch(images, None, labels, second, host_labels=known, step=step, random=Random(step))

    def draw(self, batch: Batch) -> Batch:
        """The batch with what the host decides of a step."""
        return self.loop.method.draw(batch, self.loop.training_set)

    def _images(self, count: int) -> Tensor:
        side = self.clip.image_size[0]
        return upload(torch.randn(count, 3, side, side, generator=self.stream).numpy(), self.clip.device)
