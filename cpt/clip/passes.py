"""Count the texts and images that the towers of a CLIP encode: a measured cost of a method's training step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from cpt.clip.backbone import Clip

KINDS = ("texts", "frozen_texts", "images", "frozen_images")
"""Prompts and images encoded with a graph for the backward pass, and without one (frozen)."""


class Passes:
    """Count the prompts and images that pass through the towers while ``counting``.

    Args:
        clip: the backbone to watch.
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.counts: Counter[str] = Counter()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is encoded inside the block."""
        towers = {"texts": self.clip.text, "images": self.clip.vision}
        hooks = [
            tower.register_forward_hook(lambda _, inputs, output, kind=kind: self._add(kind, output))
            for kind, tower in towers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:  # the towers outlive a training
                hook.remove()

    def per_step(self, steps: int) -> dict[str, float]:
        """Mean of each kind over a number of steps."""
        return {kind: self.counts[kind] / max(steps, 1) for kind in KINDS}

    def _add(self, kind: str, features: Tensor) -> None:
        count = len(features) if kind == "images" else features.shape[:-1].numel()
        self.counts[kind if features.requires_grad else f"frozen_{kind}"] += count
