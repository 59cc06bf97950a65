"""Prompted text encoders of BERT's kinds, and that of M2M-100 (NLLB). ``cpt.clip.hf_encoder`` reads their weights.

They see both ways, but no padding. BERT's blocks have their norms behind attention and MLP, those of M2M-100 before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from cpt.clip.blocks import Block, BlockAdapter, layer_norm
from cpt.clip.padded import PaddedTextTower


class PostNormBlock(Block):
    """A frozen residual attention block of BERT: ``y = ln_1(x + attn(x))``, then ``ln_2(y + mlp(y))``."""

    def normed(self, x: Tensor) -> Tensor:
        """The input (..., d), which the block before has normalized."""
        return x

    def finish(self, x: Tensor, attended: Tensor, adapter: BlockAdapter | None = None) -> Tensor:
        """As ``Block.finish``; what an adapter adds to the block's output comes before the last norm."""
        projected = F.linear(attended, self.attn_out_proj_weight, self.attn_out_proj_bias)
        if adapter is not None:
            projected = adapter.projected(attended, projected)
        between = layer_norm(x + projected, self.ln_1_weight, self.ln_1_bias, self.eps)
        after = between + self.mlp(between)
        after = after if adapter is None else adapter.output(self, x, between, after)
        return layer_norm(after, self.ln_2_weight, self.ln_2_bias, self.eps)


class EncoderTower(PaddedTextTower):
    """Frozen encoder with norms before attention and MLP, and what follows it in open_clip.

    Args:
        tensors: as for ``TextTower``. Where the encoder has them, also ``ln_pre.*``, a norm of the embeddings;
            ``pooler.*``, BERT's layer behind the first token; ``hidden``, the first of two layers of the projection.
        spec: as for ``PaddedTextTower``; ``pool`` may also be ``mean``.
    """

    sees_padding = False
    ln_pre_weight: Tensor | None
    ln_pre_bias: Tensor
    pooler_weight: Tensor | None
    pooler_bias: Tensor
    hidden: Tensor | None

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__(tensors, spec)
        for name in ("ln_pre.weight", "ln_pre.bias", "pooler.weight", "pooler.bias", "hidden"):
            self.register_buffer(name.replace(".", "_"), tensors.get(name))

    def enter(self, x: Tensor) -> Tensor:
        """The normalized embeddings, where the encoder normalizes them."""
        return x if self.ln_pre_weight is None else layer_norm(x, self.ln_pre_weight, self.ln_pre_bias, self.eps)

    def project(self, tokens: Tensor) -> Tensor:
        """As ``TextTower.project``, with the layers in between."""
        if self.pooler_weight is not None:
            tokens = F.linear(tokens, self.pooler_weight, self.pooler_bias).tanh()
        return super().project(tokens if self.hidden is None else F.gelu(tokens @ self.hidden))


class PostNormEncoderTower(EncoderTower):
    """The same with BERT's blocks."""

    BLOCK: ClassVar[type[Block]] = PostNormBlock
