"""LAMP from its abstract alone: the first reconstruction, kept beside that of ``cpt.methods.lamp``.

The abstract (OpenReview amBzV6V3tQ) names three parts that act in every layer: a *multimodal prompt pool* with
similarity-retrieved separated prompts, *modality-shared prompts*, and a *load balancing optimization* that adjusts the
attention weights by a bias, updated from outside the loss.

Two things differ here. The bias only chooses the entries and does not weight them, as in loss-free balancing of
mixtures of experts (Wang et al. 2024). And an input retrieves once, for all layers. Everything else is ours as well:
keys in CLIP's joint space, frozen features as queries, one latent per block that two linear maps turn into text and
visual tokens, cross-entropy as the only loss.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.errors import CptError
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import Balanced, linear
from cpt.methods.base.method import Batch, Method
from cpt.methods.base.prompts import STD, Packed, block_range

OURS = "ours: not published"


class AbstractHyperparameters(TrainingHyperparameters):
    """The pool, the shared prompts, the routing and its balancing."""

    protocol_defaults: ClassVar[dict] = {"all_classes": {"epochs": 8, "last_block": 3}}

    epochs: int = field(12, "passes over the training set (8 for all_classes)", OURS, ge=0)
    batch_size: int = field(4, "images per step", OURS, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = field("sgd", "adam and adamw: betas 0.9 and 0.999", OURS)
    learning_rate: float = field(0.0025, "peak learning rate", OURS, gt=0)
    shared_prompts: int = field(2, "modality-shared prompts per block", OURS, ge=1)
    pool_prompts: int = field(2, "retrieved prompts per block and modality", OURS, ge=1)
    pool_size: int = field(8, "entries of the pool of each modality", OURS, ge=1)
    top_k: int = field(2, "entries that are retrieved and averaged", OURS, ge=1)
    temperature: float = field(0.1, "of the softmax over the retrieved entries' cosines", OURS, gt=0)
    first_block: int = field(1, "first prompted block of both towers, from 0", "ours: intermediate layers", ge=1)
    last_block: int = field(8, "last prompted block of both towers (3 for all_classes)", OURS, ge=1)
    bias_step: float = field(0.001, "step of the balancing bias after every update", "Wang et al. 2024", ge=0)


class Pool(Balanced):
    """P entries of prompts for L blocks, each with a key; chosen by cosine plus bias, weighted by cosine alone.

    Args:
        size: P. blocks: L. count: n, prompts per block. width: d of the tower. joint: D of queries and keys.
    """

    def __init__(self, size: int, blocks: int, count: int, width: int, joint: int, generator: torch.Generator) -> None:
        super().__init__(size)
        self.prompts = nn.Parameter(torch.empty(size, blocks, count, width).normal_(std=STD, generator=generator))
        self.keys = nn.Parameter(torch.empty(size, joint).normal_(std=STD, generator=generator))

    def forward(self, queries: Tensor, top: int, temperature: float) -> Tensor:
        """Prompts (Q, L, n, d) for unit-norm queries (Q, D)."""
        cosines = queries @ F.normalize(self.keys, dim=-1).T
        chosen = self.choose(cosines.detach(), top)
        weights = (cosines.gather(1, chosen) / temperature).softmax(dim=1)
        routing = torch.zeros_like(cosines).scatter(1, chosen, weights)
        if torch.is_grad_enabled():
            self.load += torch.zeros_like(routing).scatter(1, chosen, 1.0).sum(dim=0)  # bincount waits for a GPU
        return (routing @ self.prompts.flatten(1)).unflatten(1, self.prompts.shape[1:])

    def choose(self, cosines: Tensor, top: int) -> Tensor:
        """Entries (Q, top) for cosines (Q, P): the largest with the bias."""
        return (cosines + self.bias).topk(top, dim=1).indices


class LAMPAbstract(Method):
    """Shared and retrieved prompts at intermediate blocks of both towers, balanced by an external bias."""

    name = "lamp_abstract"
    title = "LAMP from its abstract"
    summary = "prompt pool retrieved by similarity, modality-shared prompts, balanced routing"
    source = (
        "OpenReview amBzV6V3tQ: abstract; no equations, no code. There the bias adjusts attention weights and every "
        "layer has all three parts; here it only chooses pool entries, once per input for all layers"
    )
    reconstruction = True
    hyperparameters: ClassVar = AbstractHyperparameters
    uses_frozen_images = True

    def __init__(self, clip: Clip, hp: AbstractHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        self.blocks = block_range(hp.first_block, hp.last_block, clip)
        if hp.top_k > hp.pool_size:
            raise CptError(f"top_k {hp.top_k}: the pool has {hp.pool_size} entries; lower it")
        count = hp.shared_prompts + hp.pool_prompts
        if count > classes.phrase_length:
            raise CptError(
                f"{count} prompts do not fit the {classes.phrase_length} words before the class name that they "
                "replace; lower shared_prompts or pool_prompts"
            )
        shape = len(self.blocks), hp.shared_prompts, clip.embed_dim
        self.shared = nn.Parameter(torch.empty(shape).normal_(std=STD, generator=generator))
        self.to_text = linear(clip.embed_dim, clip.text.width, generator)
        self.to_vision = linear(clip.embed_dim, clip.vision.width, generator)
        size = hp.pool_size, len(self.blocks), hp.pool_prompts
        self.text_pool = Pool(*size, clip.text.width, clip.embed_dim, generator)
        self.image_pool = Pool(*size, clip.vision.width, clip.embed_dim, generator)
        self.packed = Packed()

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D); the frozen text feature of each class is its query."""
        packed = self.packed(classes, lambda: self.clip.text.pack(classes.tokens))
        deep = self._prompts(self.text_pool, self.to_text, classes.frozen_unit)
        return self.clip.text(packed, deep=deep)

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D); the frozen feature of each image is its query."""
        return self._image_features(images, self.frozen_image_features(images))

    def batch_features(self, batch: Batch) -> Tensor:
        """Unit-norm image features (B, D) of a batch; its frozen features may be cached."""
        assert batch.images is not None
        return F.normalize(self._image_features(batch.images, self.frozen_features(batch)), dim=-1)

    def step_end(self) -> None:
        """Move the routing biases towards equal load."""
        self.text_pool.balance(self.hp.bias_step)
        self.image_pool.balance(self.hp.bias_step)

    def _image_features(self, images: Tensor, queries: Tensor) -> Tensor:
        deep = self._prompts(self.image_pool, self.to_vision, queries)
        return self.clip.vision(images, deep=deep)

    def _prompts(self, pool: Pool, projection: nn.Linear, queries: Tensor) -> dict[int, Tensor]:
        """Shared, then retrieved prompts (Q, n, d) of every prompted block."""
        retrieved = pool(queries, self.hp.top_k, self.hp.temperature)  # (Q, L, n, d)
        shared = projection(self.shared).expand(queries.shape[0], -1, -1, -1)
        both = torch.cat([shared, retrieved], dim=2).to(self.clip.dtype)  # one cast for all blocks
        return dict(zip(self.blocks, both.unbind(dim=1), strict=True))
