"""Training batches: order, images, and reading ahead.

The order of an epoch is a function of (seed, epoch), so that a resumed run needs no saved position in a stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.data.images import ImageStore, normalise
from cpt.data.split import Split
from cpt.methods.base import Batch
from cpt.seeds import numpy_stream

AHEAD = 4


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the positions of each batch of an epoch: a permutation, the last incomplete batch dropped.

    A set smaller than one batch is one batch (repo KaiyangZhou/Dassl.pytorch, dassl/data/data_manager.py).
    """
    order = numpy_stream(seed, "batches", epoch).permutation(count)
    if count < batch_size:
        return [order]
    return [order[i : i + batch_size] for i in range(0, count - batch_size + 1, batch_size)]


class Batches:
    """The batches of a run.

    Args:
        clip: its device, image size and normalisation.
        split: the training images.
        store: where their pixels are.
        features: (N, D) raw frozen features of the split's images, for methods that can use them.
        augmentation: ``none`` or ``rrc_flip``.
        batch_size: images per batch.
        seed: the run's seed.
        workers: threads that decode and augment ahead of the step.
    """

    def __init__(
        self,
        clip: Clip,
        split: Split,
        store: ImageStore | None,
        features: Tensor | None,
        augmentation: str,
        batch_size: int,
        seed: int,
        workers: int,
    ) -> None:
        self.clip, self.split, self.store = clip, split, store
        self.augmentation, self.batch_size, self.seed, self.workers = augmentation, batch_size, seed, workers
        self.labels = torch.tensor(split.labels).to(clip.device)
        self.features = None if features is None else features.to(clip.device)
        self.pixels: Tensor | None = None
        if features is None and augmentation == "none":
            assert store is not None
            self.pixels = torch.tensor(store.pixels(split.rows)).to(clip.device)

    def steps(self) -> int:
        """Number of batches of an epoch."""
        return len(epoch_order(len(self.split.rows), self.batch_size, self.seed, 0))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number ``first`` on."""
        order = epoch_order(len(self.split.rows), self.batch_size, self.seed, epoch)[first:]
        if self.features is not None:
            for positions in order:
                at = torch.as_tensor(positions)
                yield Batch(None, self.features[at], self.labels[at])
        elif self.pixels is not None:
            for positions in order:
                at = torch.as_tensor(positions)
                yield Batch(normalise(self.pixels[at], self.clip.mean, self.clip.std), None, self.labels[at])
        else:
            yield from self._augmented(order, epoch)

    def _augmented(self, order: list[np.ndarray], epoch: int) -> Iterator[Batch]:
        store = self.store
        assert store is not None

        def read(positions: np.ndarray) -> np.ndarray:
            return store.training_pixels(self.split.rows[positions], self.augmentation, self.seed, epoch)

        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque = deque()
            for i, positions in enumerate(order):
                while len(waiting) < AHEAD and i + len(waiting) < len(order):
                    waiting.append(pool.submit(read, order[i + len(waiting)]))
                pixels = torch.as_tensor(waiting.popleft().result()).to(self.clip.device)
                at = torch.as_tensor(positions)
                yield Batch(normalise(pixels, self.clip.mean, self.clip.std), None, self.labels[at])
