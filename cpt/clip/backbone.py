"""The frozen CLIP of an experiment, as jobs load it: two towers, without importing open_clip, which takes seconds.

``cpt.clip.make_backbone`` writes the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from cpt.clip.device import SCALED
from cpt.clip.export import towers
from cpt.clip.text import TextTower
from cpt.clip.vision import VisionTower
from cpt.data.images import PLAIN, Resizing
from cpt.files.stage_files import read_json, read_tensors

SCHEMA = "cpt.backbone/1"
DTYPES = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, SCALED: torch.float16
}  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """A loaded frozen CLIP: two towers on one device in one precision.

    ``logit_scale`` is the multiplier of cosine similarities (100 for OpenAI's models), not its logarithm. With
    ``loss_scaling``, training scales its losses.
    """

    name: str
    text: TextTower
    vision: VisionTower
    logit_scale: float
    embed_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    sha256: str
    device: torch.device
    resizing: Resizing = PLAIN
    loss_scaling: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the frozen weights."""
        return self.text.positional_embedding.dtype

    @property
    def precision(self) -> str:
        """Name of ``dtype``, as configurations have it."""
        return str(self.dtype).removeprefix("torch.")


def pretrained(path: Path) -> str:
    """Return where a backbone's weights are from, as the configuration said: a tag, a file, ``random`` or ``shipped``.

    Raises:
        CptError: the file is missing or damaged.
    """
    return read_json(path, SCHEMA)["pretrained"]


def load_backbone(path: Path, device: str | torch.device = "cpu", precision: str = "float32") -> Clip:
    """Load the towers that ``make_backbone`` wrote.

    Raises:
        CptError: a file is missing, damaged, or does not have the recorded hash.
    """
    record = read_json(path, SCHEMA)
    weights = path.parent / record["weights"]
    tensors, _ = read_tensors(weights, "cpt.towers/1", sha256=record["sha256"])
    dtype, device = DTYPES[precision], torch.device(device)
    # The towers are built in float32, whatever the file has: they multiply weights (QuickGELU's factor).
    full = {name: t.to(device, torch.float32 if t.is_floating_point() else None) for name, t in tensors.items()}
    text, vision = towers(full, record["spec"])
    return Clip(
        name=record["name"],
        text=text.to(dtype).eval(),
        vision=vision.to(dtype).eval(),
        logit_scale=record["spec"]["logit_scale"],
        embed_dim=record["spec"]["embed_dim"],
        mean=tuple(record["image_mean"]),
        std=tuple(record["image_std"]),
        image_size=tuple(record["spec"]["vision"]["image_size"]),
        sha256=record["sha256"],
        device=device,
        resizing=Resizing.of(record),
        loss_scaling=precision == SCALED,
    )
