"""LAMP: in every prompted block, prompts that both modalities share and one that the block's class token retrieves.

A reconstruction from three sources. The *abstract* (OpenReview amBzV6V3tQ) names the parts, all of which act in every
layer: a multimodal prompt pool with similarity-retrieved separated prompts, modality-shared prompts, and a load
balancing optimization that adjusts the attention weights by a bias, moved from outside the loss. Its *reviews* quote
settings of the paper. *PromptLT* (repo asaxuc/PromptLT) is very probably the code of an earlier version; it shows the
pool, the layers and the retrieval, but its head does not run. What none of them tells is ours and marked as such.

The query is the token at position 0 of the block's input: in the vision tower the class token, in the text tower the
start token, as in PromptLT. A causal tower computes the start token from itself alone. All classes therefore get the
same prompts in the text tower, those of other names as well; no class needs a row of its own. The end token, which
differs by class, is no query in any source.

The bias enters the attention weights as softmax(scores + bias). In training the largest is retrieved, by every image
for itself. At test all entries are, weighted. Load is counted for every block and modality.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.blocks import Prompts
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import Balanced, Projections
from cpt.methods.base.method import Method
from cpt.methods.base.prompts import STD, Packed, block_range

CODE = "repo asaxuc/PromptLT, trainers/promptlt.py"
CONFIG = "repo asaxuc/PromptLT, configs/trainers/PromptLT/imb_vit_b16.yaml"
REVIEWS = "reviews of OpenReview amBzV6V3tQ"


class LAMPHyperparameters(TrainingHyperparameters):
    """Defaults of PromptLT's configurations, and of the paper where its reviews quote it."""

    protocol_defaults: ClassVar[dict] = {  # imb_vit_b16_cross_datasets.yaml, imb_vit_b16_few_shot.yaml
        "all_classes": {"epochs": 1, "warmup_epochs": 0, "batch_size": 32, "learning_rate": 0.001},
        "few_shot": {"batch_size": 32, "learning_rate": 0.001},
    }
    dataset_defaults: ClassVar[dict] = {  # imb_vit_b16_imagenet.yaml
        "base_to_new/imagenet": {"epochs": 5, "batch_size": 32, "learning_rate": 0.001},
    }

    epochs: int = field(
        50,
        "passes over the training set (1 for all_classes); its configuration alone: 10",
        "repo asaxuc/PromptLT, promptLT-worker.sh",
        ge=0,
    )
    batch_size: int = field(4, "images per step (32 for all_classes and few_shot)", CONFIG, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = field("adamw", "adam and adamw: betas 0.9 and 0.999", CONFIG)
    learning_rate: float = field(0.003, "peak learning rate (0.001 for all_classes and few_shot)", CONFIG, gt=0)
    templates: str = field("dataset", "template set of prompts (its first) and frozen text features", CODE)
    shared_prompts: int = field(2, "modality-shared prompts per block", REVIEWS, ge=1)
    dimension: int = field(
        32, "width of the latents of all prompts, and of the hidden layer behind them", f"{REVIEWS}; {CODE}", ge=1
    )
    pool_size: int = field(
        3,
        "entries of the pool of each block and modality",
        "repo asaxuc/PromptLT, clip/model.py (comments; its trainer makes 2)",
        ge=1,
    )
    first_block: int = field(2, "first prompted block of both towers, from 0: the third", f"{REVIEWS}; {CONFIG}", ge=1)
    last_block: int = field(11, "last prompted block of both towers, from 0: the twelfth", f"{REVIEWS}; {CONFIG}", ge=1)
    bias_step: float = field(
        0.001, "step of the balancing bias after every update", "Wang et al. 2024, there on gates between 0 and 1", ge=0
    )


class BlockPrompts(Balanced):
    """Prompts of L blocks of a tower, with P entries each of which a token retrieves one.

    Latents of shared prompts and of entries go through the same two layers of their block; all blocks' layers begin
    as the same ones.

    Args:
        blocks: numbers of the L blocks.
        size: P.
        dimension: of the latents.
        width: d of the tower.
    """

    def __init__(self, blocks: range, size: int, dimension: int, width: int, generator: torch.Generator) -> None:
        super().__init__(len(blocks), size)
        self.blocks, self.size = blocks, size
        self.pool = nn.Parameter(torch.empty(len(blocks), size, dimension).normal_(std=STD, generator=generator))
        self.hidden = Projections(len(blocks), dimension, dimension, generator)
        self.output = Projections(len(blocks), dimension, width, generator)

    def forward(self, shared: Tensor) -> dict[int, Prompts]:
        """What makes the prompts (Q, n + 1, d) of each block from tokens (Q, d) at its input.

        Args:
            shared: (L, n, dimension) latents that both modalities share.
        """
        made = self.output(F.relu(self.hidden(torch.cat([shared, self.pool], dim=1))))  # (L, n + P, d)
        parts = made.split([shared.shape[1], self.size], dim=1)
        by_block = zip(*(part.unbind() for part in (*parts, self.bias, self.load)), strict=True)
        return {block: partial(self.prompts, *own) for block, own in zip(self.blocks, by_block, strict=True)}

    def prompts(self, shared: Tensor, entries: Tensor, bias: Tensor, load: Tensor, tokens: Tensor) -> Tensor:
        """The shared prompts (n, d) and behind them what each of the tokens (Q, d) retrieves of entries (P, d)."""
        tokens = tokens.to(entries.dtype)
        scores = torch.addmm(bias, tokens, entries.T)
        if self.training:
            weights = torch.zeros_like(scores).scatter(1, self.choose(scores), 1.0)
            if torch.is_grad_enabled():  # what the history measures counts for nothing
                load += weights.sum(dim=0)
        else:
            weights = scores.softmax(dim=1)
        retrieved = (weights @ entries).unsqueeze(1)
        return torch.cat([shared.expand(tokens.shape[0], -1, -1), retrieved], dim=1)

    def choose(self, scores: Tensor) -> Tensor:
        """The entry (Q, 1) with the largest of scores (Q, P), which have the bias."""
        return scores.argmax(dim=1, keepdim=True)


class LAMP(Method):
    """Shared and retrieved prompts in both towers, with a bias in the attention weights against unequal load."""

    name = "lamp"
    title = "LAMP"
    summary = "prompts shared by both modalities, prompts retrieved by the running class token, balanced retrieval"
    source = (
        "OpenReview amBzV6V3tQ: abstract and reviews; repo asaxuc/PromptLT at 2e935b1, very probably an earlier "
        "version, which does not run. No equations are public"
    )
    reconstruction = True
    reads_class_token = True
    hyperparameters: ClassVar = LAMPHyperparameters

    def __init__(self, clip: Clip, hp: LAMPHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        blocks = block_range(hp.first_block, hp.last_block, clip)
        shape = len(blocks), hp.shared_prompts, hp.dimension
        self.shared = nn.Parameter(torch.empty(shape).normal_(std=STD, generator=generator))
        self.text = BlockPrompts(blocks, hp.pool_size, hp.dimension, clip.text.width, generator)
        self.vision = BlockPrompts(blocks, hp.pool_size, hp.dimension, clip.vision.width, generator)
        self.packed = Packed()

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) with the prompts inserted behind the start token, not normalized."""
        packed = self.packed(classes, lambda: self.clip.text.pack(classes.template_tokens))
        return self.clip.text(packed, deep=self.text(self.shared), insert=True)

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D) with the prompts beside the patches, where order does not matter; not normalized."""
        return self.clip.vision(images, deep=self.vision(self.shared))

    def step_end(self) -> None:
        """Move the biases towards equal load."""
        self.text.balance(self.hp.bias_step)
        self.vision.balance(self.hp.bias_step)
