"""Part ``evaluation``: images a second through the prompted vision tower, from pixels on the device and on the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.check import Check
from cpt.clip.device import upload
from cpt.data.images import normalize


@torch.no_grad()
def evaluation(check: Check) -> None:
    """Measure several sizes of a batch."""
    clip = check.clip(torch.bfloat16)
    method = check.steps("ivlp", clip, 24).loop.method.eval()
    height, width = clip.image_size
    for size in (64, 256, 1024) if check.cuda else (8,):
        pixels = np.random.default_rng(0).integers(0, 256, (size, height, width, 3), dtype=np.uint8)
        images = normalize(upload(pixels, check.device), clip.mean, clip.std)

        def from_host(pixels: np.ndarray = pixels) -> Tensor:
            return method.image_features(normalize(upload(pixels, check.device), clip.mean, clip.std))

        tower = check.seconds(lambda: method.image_features(images))  # noqa: B023 - called at once
        check.row("evaluation", f"{size} a batch", tower=size / tower, from_host=size / check.seconds(from_host))
