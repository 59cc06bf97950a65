"""The work that is measured: IVLP on CLIP's ViT-B/16 with random weights and ImageNet's class names.

Ours is the real method in the real loop; the naive one (``Naive``) computes the same losses on open_clip's own model.
Both start from the same values and see the same images.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import naive
from cpt.clip.backbone import Clip
from cpt.clip.export import export, towers
from cpt.data.images import ImageStore
from cpt.data.split import Split
from cpt.features.text import Classes, tokenize
from cpt.methods.base import registry
from cpt.methods.base.method import Method
from cpt.seeds import torch_stream
from cpt.training.batches import Batches

ARCHITECTURE = "ViT-B-16-quickgelu"
QUICK: dict[str, Any] = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 96, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
"""Sizes of ``--quick``, as a model configuration of open_clip."""
PROMPTS, DEPTH, QUICK_DEPTH, BATCH, PHRASE = 4, 9, 2, 4, 4
PHOTOGRAPH = (375, 500)
"""Height and width of the decoded images that a step crops and resizes."""
LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Problem:
    """Both forms of one model.

    Attributes:
        model: of open_clip, frozen.
        clip: our towers with the same weights.
        depth: prompted blocks of both towers.
    """

    model: nn.Module
    clip: Clip
    depth: int

    def classes(self, count: int) -> Classes:
        """The first classes of ImageNet (their names come again behind the last one), with random frozen features."""
        names = [open_clip.IMAGENET_CLASSNAMES[i % 1000] for i in range(count)]
        length = self.clip.text.context_length
        tokens = tokenize(open_clip.tokenize, [f"a photo of a {name}." for name in names], length)
        own = tokenize(open_clip.tokenize, names, length).argmax(dim=1) - 1
        frozen = torch.randn(count, self.clip.embed_dim, generator=torch.Generator().manual_seed(1))
        frozen = frozen.to(self.clip.device)
        return Classes(tuple(names), tokens, PHRASE, frozen, F.normalize(frozen, dim=-1), tokens, own, tokens)

    def method(self, classes: Classes) -> Method:
        """The method that is measured, at its first step."""
        kind = registry.get("ivlp")
        depths = {"depth_text": self.depth, "depth_vision": self.depth, "batch_size": BATCH}
        hp = kind.hyperparameters(**depths, text_prompts=PROMPTS, visual_prompts=PROMPTS, learning_rate=1e-5)
        method = kind(self.clip, hp, classes, torch_stream(0, "initial prompts")).to(self.clip.device)
        return method.train()

    def batches(self, classes: Classes, steps: int, threads: int) -> Batches:
        """Cropped, resized and mirrored images of noise, prepared ahead of the step by as many threads."""
        size = BATCH * steps
        labels = np.arange(size) % len(classes)
        counts = np.bincount(labels, minlength=len(classes))
        split = Split(np.arange(size), labels, np.arange(len(classes)), counts, list(classes.names), [], {})
        store = Noise(self.clip.image_size[0])
        return Batches(self.clip, split, store, None, "rrc_flip", BATCH, 0, threads)


def make_problem(*, quick: bool, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Problem:
    """Make the model with random weights, always the same ones."""
    torch.manual_seed(0)
    if quick:
        model = open_clip.CLIP(**QUICK)
    else:
        logging.disable(logging.WARNING)  # that the weights are random is meant
        model = open_clip.create_model(ARCHITECTURE, pretrained=None)
        logging.disable(logging.NOTSET)
    model = model.eval().requires_grad_(False)
    tensors, spec = export(model)
    text, vision = towers(tensors, spec)
    size = tuple(spec["vision"]["image_size"])
    clip = Clip(
        "random", text.to(device, dtype).eval(), vision.to(device, dtype).eval(), LOGIT_SCALE, spec["embed_dim"],
        (0.5,) * 3, (0.25,) * 3, size, "", torch.device(device),
    )  # fmt: skip
    return Problem(model.to(device, dtype), clip, QUICK_DEPTH if quick else DEPTH)


class Noise(ImageStore):
    """Decoded images of noise: every row is the same photograph."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._photograph = np.random.default_rng(0).integers(0, 256, (*PHOTOGRAPH, 3), dtype=np.uint8)

    def image(self, row: int) -> NDArray[np.uint8]:
        """The photograph (H, W, 3)."""
        return self._photograph

    def square(self, row: int) -> NDArray[np.uint8]:
        """A part of it (size, size, 3)."""
        return self._photograph[: self.size, : self.size]

    def load(self, rows: ArrayLike, workers: int, augmentation: str = "rrc_flip") -> None:
        """Nothing: it is decoded."""


class Naive(nn.Module):
    """IVLP as the reference codes compute it: every class at 77 positions, through open_clip's own blocks.

    Args:
        problem: the frozen model.
        method: ours, whose values it starts from; its parameters have the same names.
        classes: the K classes.
    """

    def __init__(self, problem: Problem, method: Method, classes: Classes) -> None:
        super().__init__()
        self.model, self.device = problem.model, problem.clip.device
        self.tokens = classes.tokens.to(self.device)
        self.values = {name: nn.Parameter(p.detach().clone()) for name, p in method.named_parameters()}
        self.learned = nn.ParameterList(self.values.values())

    def text(self, tokens: Tensor) -> Tensor:
        """Raw text features (k, D) of tokens (k, 77)."""
        context, deep = self._prompts("text.context", "text.deep", 1)
        return naive.text_features(self.model, tokens, context, deep).float()

    def images(self, images: Tensor) -> Tensor:
        """Raw image features (B, D)."""
        first, deep = self._prompts("visual.prompts.0", "visual.prompts", 0)
        return naive.image_features(self.model, images.to(self._dtype), first, deep).float()

    def loss(self, images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of raw features."""
        logits = LOGIT_SCALE * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
        return F.cross_entropy(logits, labels)

    @property
    def _dtype(self) -> torch.dtype:
        return self.model.positional_embedding.dtype

    def _prompts(self, first: str, others: str, offset: int) -> tuple[Tensor, dict[int, Tensor]]:
        """The prompts of the first block, and of the further ones by block."""
        deep = {
            offset + int(name.rpartition(".")[2]): value.to(self._dtype)
            for name, value in self.values.items()
            if name.startswith(f"{others}.") and name != first
        }
        return self.values[first].to(self._dtype), deep
