"""CLIP-LoRA: low-rank changes of the attention's matrices in all blocks of both towers.

Zanella and Ben Ayed, CVPRW 2024. Nothing belongs to a class: new classes are scored, like trained ones, by the texts of
their names.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from cpt.clip.backbone import Clip
from cpt.clip.blocks import Block, BlockAdapter
from cpt.clip.device import upload
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import dropout
from cpt.methods.base.method import Batch, Method, Step, TrainingSet
from cpt.methods.base.prompts import Packed

ARGUMENTS = "repo MaxZanella/CLIP-LoRA, run_utils.py"
CODE = "repo MaxZanella/CLIP-LoRA, lora.py"
LAYERS = "repo MaxZanella/CLIP-LoRA, loralib/layers.py"

SHOTS, STEPS_PER_SHOT, BATCH = 16, 500, 32
CLASSES = {
    "imagenet": 1000, "caltech101": 100, "oxford_pets": 37, "stanford_cars": 196, "oxford_flowers": 102, "food101": 101,
    "fgvc_aircraft": 100, "sun397": 397, "dtd": 47, "eurosat": 10, "ucf101": 101,
}  # fmt: skip
"""Classes of the published datasets; base-to-new trains the first half."""


def _passes(classes: int) -> dict[str, int]:
    """The epochs that make 500 steps per shot of 16 images of every class."""
    return {"epochs": round(STEPS_PER_SHOT * SHOTS / (SHOTS * classes // BATCH))}


class CLIPLoRAHyperparameters(TrainingHyperparameters):
    """Defaults of the published code: the same for all datasets and numbers of images."""

    schedule: ClassVar[Literal["epoch", "step"]] = "step"
    final_learning_rate: ClassVar[float] = 1e-6
    dataset_defaults: ClassVar[dict] = {
        **{dataset: _passes(count) for dataset, count in CLASSES.items()},
        **{f"base_to_new/{dataset}": _passes(math.ceil(count / 2)) for dataset, count in CLASSES.items()},
    }

    epochs: int = field(
        160, "passes over the training set: 8000 steps of 32 images, with 16 of each class (here of 100 classes)",
        f"{ARGUMENTS}: 500 x shots, whatever the classes", ge=0,
    )  # fmt: skip
    batch_size: int = field(32, "images per step", ARGUMENTS, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = field("adamw", "adam and adamw: betas 0.9 and 0.999", CODE)
    learning_rate: float = field(2e-4, "first learning rate; a cosine of steps ends at 1e-6", ARGUMENTS, gt=0)
    weight_decay: float = field(0.01, "L2 on all learned values, coupled (adamw: decoupled)", CODE, ge=0)
    warmup_epochs: int = field(0, "no effect: the cosine of steps has no warm-up", CODE, ge=0)
    templates: str = field("dataset", "template set of prompts (its first) and frozen text features", CODE)
    encoder: Literal["both", "text", "vision"] = field("both", "towers that are changed", ARGUMENTS)
    matrices: str = field(
        "qkv", "changed matrices: of queries, keys, values, and o, the projection behind", ARGUMENTS,
        pattern="^q?k?v?o?$", min_length=1,
    )  # fmt: skip
    rank: int = field(2, "rank r of a change", ARGUMENTS, ge=1)
    alpha: float = field(1.0, "a change is alpha / √r B A (rank-stabilized)", f"{ARGUMENTS}; {LAYERS}", gt=0)
    dropout: float = field(0.25, "share of the changes' inputs that is set to zero in training", ARGUMENTS, ge=0, lt=1)


Factors = tuple[Tensor, Tensor]
"""A and B of some changes."""


class Changes(nn.Module):
    """Low-rank changes (alpha / √r) B A of m matrices in each of L blocks of a tower of width d.

    A (L, m, r, d) begins as torch's linear layers do, B (L, m, d, r) as zero.
    """

    def __init__(self, blocks: int, width: int, hp: CLIPLoRAHyperparameters, generator: torch.Generator) -> None:
        super().__init__()
        shape, bound = (blocks, len(hp.matrices), hp.rank, width), 1 / math.sqrt(width)
        self.a = nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
        self.b = nn.Parameter(torch.zeros(*shape[:2], width, hp.rank))
        self.matrices, self.scale = hp.matrices, hp.alpha / math.sqrt(hp.rank)

    def adapters(self, dtype: torch.dtype, rate: float, keys: Tensor | None) -> dict[int, BlockAdapter]:
        """The parts of all blocks.

        Args:
            dtype: of the tower.
            rate: of the dropout.
            keys: (L, 2) int64, of the dropout before q, k, v and before o; None for no dropout.
        """
        a, b = self.a.to(dtype), (self.scale * self.b).to(dtype)  # one cast for all blocks
        none = [None] * len(a)
        inputs = none if self.matrices == "o" else _by_block(_qkv(a, self.matrices), _qkv(b, self.matrices))
        outputs = _by_block(a[:, -1:], b[:, -1:]) if "o" in self.matrices else none
        own = none if keys is None or rate == 0 else keys.unsqueeze(-1).unbind()
        return {i: LowRank(*parts, rate) for i, parts in enumerate(zip(inputs, outputs, own, strict=True))}

    @torch.no_grad()
    def merge(self, blocks: nn.ModuleList) -> None:
        """Add the changes to the blocks' own weights."""
        for i, block in enumerate(blocks):
            assert isinstance(block, Block)
            weights = dict(zip("qkvo", (*block.attn_in_proj_weight.chunk(3), block.attn_out_proj_weight), strict=True))
            for name, change in zip(self.matrices, self.scale * self.b[i] @ self.a[i], strict=True):
                weights[name] += change.to(weights[name].dtype)


def _by_block(a: Tensor, b: Tensor) -> list[Factors]:
    return list(zip(a.unbind(), b.unbind(), strict=True))


def _qkv(values: Tensor, matrices: str) -> Tensor:
    """Those of queries, keys and values (L, 3, ...) among the changes (L, m, ...); zero where there is no change."""
    if matrices == "qkv":
        return values
    none = torch.zeros_like(values[:, 0])
    return torch.stack([values[:, matrices.index(name)] if name in matrices else none for name in "qkv"], dim=1)


class LowRank(BlockAdapter):
    """What the changes of one block add.

    Args:
        inputs: A (3, r, d) and B (3, d, r) of queries, keys and values; None for no change.
        output: A (1, r, d) and B (1, d, r) of the projection behind; None for no change.
        keys: (2, 1) of the dropout; None for no dropout.
        rate: of the dropout.
    """

    def __init__(self, inputs: Factors | None, output: Factors | None, keys: Tensor | None, rate: float) -> None:
        super().__init__()
        self.inputs, self.outputs, self.keys, self.rate = inputs, output, keys, rate

    def qkv(self, normed: Tensor, qkv: Tensor) -> Tensor:
        """Queries, keys and values (..., 3d) of the changed matrices."""
        if self.inputs is None:
            return qkv
        return qkv + self._changes(normed, 0, *self.inputs).movedim(0, -2).flatten(-2)

    def projected(self, attended: Tensor, projected: Tensor) -> Tensor:
        """The projected output (..., d) of the changed matrix."""
        return projected if self.outputs is None else projected + self._changes(attended, 1, *self.outputs).squeeze(0)

    def _changes(self, x: Tensor, place: int, a: Tensor, b: Tensor) -> Tensor:
        """B A x (c, ..., d) of c changes, for ``x`` (..., d); ``place`` is that of the dropout's key."""
        rows = x.flatten(0, -2)
        kept = rows if self.keys is None else dropout(rows, self.rate, self.keys[place], len(a))
        return (kept @ a.mT @ b.mT).unflatten(1, x.shape[:-1])


class CLIPLoRA(Method):
    """Low-rank changes of both towers, trained with cross-entropy."""

    name = "clip_lora"
    title = "CLIP-LoRA"
    summary = "low-rank changes of the attention's matrices in both towers, which can be merged into the weights"
    source = f"Zanella and Ben Ayed, CVPRW 2024; {CODE}"
    family = "low_rank"
    hyperparameters: ClassVar = CLIPLoRAHyperparameters

    def __init__(self, clip: Clip, hp: CLIPLoRAHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.changes = nn.ModuleDict()
        for name, blocks, width in self._towers(clip):
            if hp.encoder in ("both", name):
                self.changes[name] = Changes(len(blocks), width, hp, generator)
        self.packed = Packed()
        self._keys: dict[str, Tensor] = {}

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) of the changed tower; the frozen ones if it is not changed."""
        if "text" not in self.changes:
            return classes.directions
        packed = self.packed(classes, lambda: self.clip.text.pack(classes.template_tokens))
        return self.clip.text(packed, adapters=self._adapters("text"))

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D) of the changed tower."""
        if "vision" not in self.changes:
            with torch.no_grad():
                return self.clip.vision(images)
        return self.clip.vision(images, adapters=self._adapters("vision"))

    def draw(self, batch: Batch, training_set: TrainingSet) -> Batch:
        """Keys of the dropout's masks: two of 63 bits for every changed block."""
        blocks = sum(len(self._of(tower).a) for tower in self.changes)
        keys = np.array([[batch.random.getrandbits(63) for _ in range(2)] for _ in range(blocks)])
        return replace(batch, drawn=upload(keys, self.clip.device))

    def step(self, batch: Batch, training_set: TrainingSet) -> Step:
        """The losses of one batch, with dropout in training mode; nothing else has it."""
        if self.training and batch.drawn is not None:
            parts = batch.drawn.split([len(self._of(tower).a) for tower in self.changes])
            self._keys = dict(zip(self.changes, parts, strict=True))
        found = super().step(batch, training_set)
        self._keys = {}
        return found

    def merged(self) -> Clip:
        """The backbone with the changes added to its weights."""
        clip = replace(self.clip, text=copy.deepcopy(self.clip.text), vision=copy.deepcopy(self.clip.vision))
        for name, blocks, _ in self._towers(clip):
            if name in self.changes:
                self._of(name).merge(blocks)
        return clip

    @classmethod
    def keeps_images(cls, hp: CLIPLoRAHyperparameters) -> bool:
        """Whether the vision tower is left as it is."""
        return hp.encoder == "text"

    @staticmethod
    def _towers(clip: Clip) -> tuple[tuple[str, nn.ModuleList, int], ...]:
        """Name, blocks and width of both towers."""
        return ("text", clip.text.blocks, clip.text.width), ("vision", clip.vision.blocks, clip.vision.width)

    def _of(self, tower: str) -> Changes:
        return cast("Changes", self.changes[tower])

    def _adapters(self, tower: str) -> dict[int, BlockAdapter]:
        return self._of(tower).adapters(self.clip.dtype, self.hp.dropout, self._keys.get(tower))
