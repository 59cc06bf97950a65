"""MMA: adapters in the upper blocks of both towers with a layer that the towers share (Yang et al., CVPR 2024).

In each of these blocks ``y = a Up(S(ReLU(Down(ln_1 x))))`` is added to the output, for all tokens; ``x`` is the block's
input, ``ln_1`` the block's own frozen norm, and ``S = ReLU(Linear)`` the same layer in the vision and the text tower.

The published code scales gradients: those of Down, S and Up are 1/a times the true ones, as if a were 1, while the one
that flows on into ``x`` is the true one. A class that was not trained is scored by its text features under the
same adapters; no class has values of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.blocks import Block, BlockAdapter
from cpt.features.text import Classes
from cpt.methods.base.hyperparameters import TrainingHyperparameters, field
from cpt.methods.base.layers import in_precision, zero_linear
from cpt.methods.base.method import Method
from cpt.methods.base.prompts import Packed, block_range

CODE = "repo ZjjConan/VLM-MultiModalAdapter, trainers/mmadapter.py"
CONFIG = "repo ZjjConan/VLM-MultiModalAdapter, vit_b16_ep5.yaml"


class MMAHyperparameters(TrainingHyperparameters):
    """Defaults of the published base-to-new configuration, for all protocols."""

    epochs: int = field(5, "passes over the training set", CONFIG, ge=0)
    batch_size: int = field(16, "images per step", CONFIG, ge=1)
    learning_rate: float = field(0.0015, "peak learning rate of SGD", CONFIG, gt=0)
    warmup_epochs: int = field(0, "epochs at the constant warm-up rate", CONFIG, ge=0)
    adapter_width: int = field(32, "width of the adapters", CONFIG, ge=1)
    adapter_scale: float = field(0.001, "factor a of what the adapters add", CONFIG, gt=0)
    first_block: int = field(4, "first adapted block of both towers, from 0", f"{CONFIG}: 5, from 1", ge=0)
    last_block: int = field(11, "last adapted block of both towers, from 0", f"{CONFIG}: 12, from 1", ge=0)


class Scaled(torch.autograd.Function):
    """``x`` times one factor, and its gradient times another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, gradient_factor: float) -> Tensor:
        """(...) -> (...)."""
        ctx.factor = gradient_factor
        return x.view_as(x) if factor == 1 else x * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """(...) -> (...)."""
        return gradient if ctx.factor == 1 else gradient * ctx.factor, None, None


def scaled(x: Tensor, factor: float, gradient_factor: float) -> Tensor:
    """``x`` times a factor, whose gradient is instead multiplied by ``gradient_factor``."""
    found: Tensor = Scaled.apply(x, factor, gradient_factor)  # type: ignore[no-untyped-call]
    return found


class MultiModalAdapter(BlockAdapter):
    """``a Up(S(ReLU(Down(ln_1 x))))`` of every token of a block's input, with the gradients of the published code.

    Args:
        width: d of the tower.
        hidden: width of the adapter.
        scale: a.
        shared: S; a function, because the layer belongs to both towers.
        generator: random stream of the initial values.
    """

    def __init__(
        self, width: int, hidden: int, scale: float, shared: Callable[[Tensor], Tensor], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.down, self.up = layer(width, hidden, generator), layer(hidden, width, generator)
        self.factor, self.shared = scale, shared

    def output(self, block: Block, before: Tensor, between: Tensor, after: Tensor) -> Tensor:
        """The block's output with that of the adapter.

        Gradients reach Up as they are, and are multiplied by a where they leave the adapter: in half precision a
        thousandth of them would be too small for its numbers.
        """
        hidden = F.relu(in_precision(self.down, block.normed(scaled(before, 1, self.factor))))
        return after + scaled(in_precision(self.up, self.shared(hidden)), self.factor, 1)


def layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer that starts as in the published code: normal with variance 2 / outputs, no bias."""
    made = zero_linear(inputs, outputs)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", generator=generator)
    return made


def through(shared: Any, hidden: Tensor) -> Tensor:
    """S, (..., m) -> (..., m)."""
    return F.relu(in_precision(shared, hidden))


class MMA(Method):
    """Cross-entropy of both adapted towers; the prompts are frozen words."""

    name = "mma"
    title = "MMA"
    summary = "adapters in the upper blocks of both towers, with a layer that the towers share"
    source = f"Yang et al., CVPR 2024; {CODE}"
    family = "adapters"
    hyperparameters: ClassVar = MMAHyperparameters

    def __init__(self, clip: Clip, hp: MMAHyperparameters, classes: Classes, generator: torch.Generator) -> None:
        super().__init__(clip, hp, classes, generator)
        blocks, width = block_range(hp.first_block, hp.last_block, clip), hp.adapter_width
        self.shared = nn.ModuleDict({str(block): layer(width, width, generator) for block in blocks})
        self.text, self.visual = (
            nn.ModuleDict({
                block: MultiModalAdapter(tower.width, width, hp.adapter_scale, partial(through, shared), generator)
                for block, shared in self.shared.items()
            })
            for tower in (clip.text, clip.vision)
        )  # fmt: skip
        self.packed = Packed()

    def raw_text_features(self, classes: Classes) -> Tensor:
        """Text features (K, D) of ``a photo of a <name>.`` under the adapters."""
        packed = self.packed(classes, lambda: self.clip.text.pack(classes.tokens))
        return self.clip.text(packed, adapters=by_block(self.text))

    def raw_image_features(self, images: Tensor) -> Tensor:
        """Image features (B, D) under the adapters."""
        return self.clip.vision(images, adapters=by_block(self.visual))


def by_block(adapters: nn.ModuleDict) -> dict[int, BlockAdapter]:
    """Adapters as the towers take them."""
    return {int(block): adapter for block, adapter in adapters.items()}  # type: ignore[misc]
