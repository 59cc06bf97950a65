"""Training batches: order, images, and prefetching.

The order of an epoch is a function of (seed, epoch), so a resumed run needs no saved position in a random stream.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

import numpy as np
import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.data.images import ImageStore, normalize
from cpt.data.split import Split
from cpt.methods.base.method import Batch
from cpt.seeds import numpy_stream, stream_seed

AHEAD = 4


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the positions of each batch of an epoch: a permutation, without the last, incomplete batch.

    A set smaller than one batch forms one batch (repo KaiyangZhou/Dassl.pytorch, dassl/data/data_manager.py).
    """
    order = numpy_stream(seed, "batches", epoch).permutation(count)
    if count < batch_size:
        return [order]
    return [order[i : i + batch_size] for i in range(0, count - batch_size + 1, batch_size)]


def balanced_order(labels: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the positions of each batch of an epoch that draws every class equally often, in as many batches.

    Classes take turns, in an order that is drawn anew whenever all had theirs; so do the images of a class (repo
    facebookresearch/classifier-balancing, data/ClassAwareSampler.py). So numbers of draws differ by one at most,
    between classes and between the images of a class.

    Args:
        labels: (N,) of all training images.
    """
    random = numpy_stream(seed, "balanced batches", epoch)
    sizes = [len(batch) for batch in epoch_order(len(labels), batch_size, seed, epoch)]
    classes, drawn = np.unique(labels), sum(sizes)
    turns = _repeatedly(classes, drawn, random)
    order = np.empty(drawn, dtype=np.int64)
    for label in classes:
        own = np.flatnonzero(turns == label)
        order[own] = _repeatedly(np.flatnonzero(labels == label), len(own), random)
    return np.split(order, np.cumsum(sizes)[:-1])


def _repeatedly(values: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """``count`` values: one permutation of all after the other."""
    return np.concatenate([random.permutation(values) for _ in range(-(-count // len(values)))] or [values])[:count]


def repetitions(order: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for every position of every batch how often it was there before in the epoch."""
    before: Counter[int] = Counter()
    found = []
    for positions in order:
        times = []
        for position in positions.tolist():
            times.append(before[position])
            before[position] += 1
        found.append(np.array(times, dtype=np.int64))
    return found


class Batches:
    """The batches of a run.

    Args:
        clip: gives device, image size and normalization.
        split: the training images.
        store: gives their pixels; None if the method needs only ``features``.
        features: (N, D) raw frozen features of the split's images, for methods that can use them.
        augmentation: ``none``, ``rrc_flip`` or ``rand_augment``.
        batch_size: images per batch.
        seed: the run's seed.
        workers: threads that decode and augment images.
        views: augmented views of every image, 1 or 2; without augmentation there is one.
        sampler: ``random`` (every image once an epoch) or ``class_balanced``.
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
        views: int = 1,
        sampler: str = "random",
    ) -> None:
        self.clip, self.split, self.store = clip, split, store
        self.augmentation, self.batch_size, self.seed, self.workers = augmentation, batch_size, seed, workers
        self.views, self.sampler = 1 if augmentation == "none" else views, sampler
        self._pool = ThreadPoolExecutor(workers)
        self.labels = np.asarray(split.labels)
        self.features = None if features is None else features.to(clip.device)
        self.pixels: Tensor | None = None
        if store is not None and augmentation != "none":
            store.load(split.rows, workers, augmentation)
        elif store is not None:
            self.pixels = torch.tensor(store.pixels(split.rows)).to(clip.device)

    def steps(self) -> int:
        """Number of batches of an epoch."""
        return len(self._order(0))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number ``first`` on."""
        order = self._order(epoch)
        if self.store is None or self.pixels is not None:
            for step in range(first, len(order)):
                yield self._batch(order[step], [], epoch, step)
        else:
            yield from self._augmented(order, epoch, first)

    def _order(self, epoch: int) -> list[np.ndarray]:
        if self.sampler == "class_balanced":
            return balanced_order(self.labels, self.batch_size, self.seed, epoch)
        return epoch_order(len(self.labels), self.batch_size, self.seed, epoch)

    def take(self, positions: Sequence[int], batch: Batch) -> Batch:
        """Return further training images by their positions in the split, with a new view in every step."""
        chosen, views = np.asarray(positions, dtype=np.int64), []
        if self.store is not None and self.pixels is None:
            parts = np.array_split(chosen, max(1, min(self.workers, len(chosen))))  # the step waits for them
            read = partial(self._read, epoch=batch.epoch, view=self.views + batch.step)
            views = [np.concatenate(list(self._pool.map(read, parts)))]
        return self._batch(chosen, views, batch.epoch, batch.step)

    def _batch(self, positions: np.ndarray, views: list[np.ndarray], epoch: int, step: int) -> Batch:
        device = self.clip.device
        images = [self._normalized(upload(view, device)) for view in views]
        resident = self.pixels is not None or self.features is not None
        at = upload(positions, device) if resident else None
        if self.pixels is not None:
            images = [self._normalized(self.pixels[at])]
        return Batch(
            images=images[0] if images else None,
            features=None if self.features is None else self.features[at],
            labels=upload(self.labels[positions], device),
            second=images[1] if len(images) > 1 else None,
            host_labels=self.labels[positions].tolist(),
            epoch=epoch,
            step=step,
            random=Random(stream_seed(self.seed, "step", epoch, step)),
        )

    def _normalized(self, pixels: Tensor) -> Tensor:
        return normalize(pixels, self.clip.mean, self.clip.std)

    def _read(self, positions: np.ndarray, epoch: int, view: int | np.ndarray) -> np.ndarray:
        assert self.store is not None
        return self.store.training_pixels(self.split.rows[positions], self.augmentation, self.seed, epoch, view)

    def _augmented(self, order: list[np.ndarray], epoch: int, first: int) -> Iterator[Batch]:
        repeated = repetitions(order)

        def read(step: int) -> list[np.ndarray]:
            """The images of a step, those that were there before in other views."""
            return [self._read(order[step], epoch, view + self.views * repeated[step]) for view in range(self.views)]

        ahead = max(AHEAD, self.workers + 1)  # work for every thread while one batch is used
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque = deque()
            for step in range(first, len(order)):
                while len(waiting) < ahead and step + len(waiting) < len(order):
                    waiting.append(pool.submit(read, step + len(waiting)))
                yield self._batch(order[step], waiting.popleft().result(), epoch, step)
