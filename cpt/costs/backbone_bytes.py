"""Bytes of the pretrained weights: their download and their export."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cpt.experiment.config import Backbone


class Weights(NamedTuple):
    """Bytes that are still to come: into the hub's cache, and at most into the experiment's folder."""

    download: int
    export: int


def to_come(backbone: Backbone, root: str, *, plain: bool) -> Weights:
    """Return what the backbone stage has still to fetch and to write.

    Both are counted as float32. Weights whose values float16 holds are exported as such, in half the bytes. The tiny
    CLIP's two megabytes are not counted.

    Args:
        backbone: the configuration's, which ``cpt.experiment.preflight.check`` has accepted.
        root: folder of the experiment.
        plain: whether the architecture is two plain ViTs; others are not counted.
    """
    from cpt.clip import weights
    from cpt.clip.tiny import EMBEDDED

    if not plain or backbone.architecture == EMBEDDED or Path(root, "backbone.json").is_file():
        return Weights(0, 0)
    size = 4 * _parameters(backbone.architecture)
    entry = weights.entries(backbone.architecture).get(backbone.pretrained)
    fetched = entry is not None and weights.in_cache(entry) is None
    return Weights(size if fetched else 0, size)


def _parameters(architecture: str) -> int:
    """Number of parameters of a model of open_clip, of which no memory is taken."""
    import open_clip
    import torch

    from cpt.clip.make_backbone import described

    held = described(architecture)
    with torch.device("meta"):
        model = open_clip.CLIP(held["embed_dim"], held["vision_cfg"], held["text_cfg"])
    return sum(parameter.numel() for parameter in model.parameters())
