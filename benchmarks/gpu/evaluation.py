"""Part ``evaluation``: images a second through the prompted vision tower, alone and as evaluation reads them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.gpu.check import Check
from cpt.clip.device import upload
from cpt.data.images import normalize
from cpt.features.images import batch_size, encode

BATCHES = 8
"""Batches of a pass with reading."""


@torch.no_grad()
def evaluation(check: Check) -> None:
    """Measure several sizes of a batch on the device, then a pass from the host's memory, as evaluation does it."""
    clip = check.clip()
    method = check.steps("ivlp", clip, 24).loop.method.eval()
    height, width = clip.image_size
    for size in (64, 256, 1024) if check.cuda else (8,):
        pixels = np.random.default_rng(0).integers(0, 256, (size, height, width, 3), dtype=np.uint8)
        images = normalize(upload(pixels, check.device), clip.mean, clip.std)
        seconds = check.seconds(lambda: method.image_features(images))  # noqa: B023 - called at once
        check.row("evaluation", f"{size} a batch", tower=size / seconds)

    rows = np.arange(BATCHES * batch_size(clip) if check.cuda else 8)
    cached = np.random.default_rng(0).integers(0, 256, (len(rows), height, width, 3), dtype=np.uint8)
    store = SimpleNamespace(size=height, pixels=lambda wanted: cached[wanted])

    def read() -> None:
        for _ in encode(clip, store, rows, method.image_features):
            pass

    check.row(
        "evaluation", "read from memory", images=len(rows), images_per_second=len(rows) / check.seconds(read, 1, 1)
    )
