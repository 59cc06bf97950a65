"""CLIP-Adapter: a residual network on the frozen image features (Gao et al., IJCV 2024), as the code of CLAP trains it.

A raw image feature f becomes ``0.2 relu(W2 relu(W1 f)) + 0.8 f``; it is classified by the frozen class texts. The
adapter belongs to no class: new classes are scored by their text features, like trained ones.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.features.text import Classes
from cpt.methods.base.class_rows import CLAP_CODE, ProbeHyperparameters
from cpt.methods.base.hyperparameters import field
from cpt.methods.base.layers import Adapter
from cpt.methods.base.method import Method


class CLIPAdapterHyperparameters(ProbeHyperparameters):
    """Those of the linear probes, share and width of the adapter."""

    ratio: float = field(0.2, "share of the adapter in the image feature", CLAP_CODE, gt=0, le=1)
    reduction: int = field(4, "width of the adapter: joint width / this", CLAP_CODE, ge=1)


class CLIPAdapter(Method):
    """Cross-entropy of adapted image features against the frozen class texts."""

    name = "clip_adapter"
    title = "CLIP-Adapter"
    summary = "a residual network on the frozen image features"
    source = f"Gao et al., IJCV 2024; {CLAP_CODE}"
    family = "adapters"
    hyperparameters: ClassVar = CLIPAdapterHyperparameters
    prompts_images = False

    def __init__(
        self, clip: Clip, hp: CLIPAdapterHyperparameters, classes: Classes, generator: torch.Generator
    ) -> None:
        super().__init__(clip, hp, classes, generator)
        self.adapter = Adapter(clip.embed_dim, hp.reduction, hp.ratio, generator)

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Frozen text features (K, D)."""
        return classes.frozen

    def from_frozen(self, features: Tensor) -> Tensor:
        """Adapted features (B, D) of raw frozen ones (B, D)."""
        return self.adapter(features)
