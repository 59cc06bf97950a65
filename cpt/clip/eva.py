"""The block of EVA's vision transformers: rotary positions, norms inside attention and MLP, gated MLPs.

Only patches are rotated. The class token and prompts have no place on the grid, and are left as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.blocks import Block, BlockAdapter, layer_norm


class EvaBlock(Block):
    """A frozen block with any of EVA's parts.

    Its tensors are those of ``Block`` and, where it has these parts, ``rotary`` (N, 2 d/h), sines and cosines of the N
    patches; ``attn.norm`` and ``mlp.norm``, before the last layers of attention and MLP; ``mlp.c_gate``, whose SiLU
    multiplies the MLP's hidden layer in place of an activation.
    """

    OPTIONAL = (
        *Block.OPTIONAL, "rotary", "attn.norm.weight", "attn.norm.bias", "mlp.norm.weight", "mlp.norm.bias",
        "mlp.c_gate.weight", "mlp.c_gate.bias",
    )  # fmt: skip
    PREFIX = 1
    """Tokens before the patches."""

    rotary: Tensor | None
    attn_norm_weight: Tensor | None
    attn_norm_bias: Tensor
    mlp_norm_weight: Tensor | None
    mlp_norm_bias: Tensor
    mlp_c_gate_weight: Tensor | None
    mlp_c_gate_bias: Tensor

    def attention(
        self, qkv: Tensor, *, causal: bool = False, read: int | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """As ``Block.attention``, with rotated queries and keys."""
        if self.rotary is not None:
            q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in qkv.chunk(3, dim=-1))  # (B, T, h, d/h)
            around = (0, 0, self.PREFIX, qkv.shape[1] - self.PREFIX - len(self.rotary))
            sine, cosine = self.rotary.chunk(2, dim=-1)
            sine, cosine = (F.pad(x, around, value=y).unsqueeze(1) for x, y in ((sine, 0.0), (cosine, 1.0)))
            q, k = (x * cosine + turned(x) * sine for x in (q, k))
            qkv = torch.cat([part.flatten(2) for part in (q, k, v)], dim=-1)
        return super().attention(qkv, causal=causal, read=read, mask=mask)

    def finish(self, x: Tensor, attended: Tensor, adapter: BlockAdapter | None = None) -> Tensor:
        """As ``Block.finish``, with the norm before the projection."""
        if self.attn_norm_weight is not None:
            attended = layer_norm(attended, self.attn_norm_weight, self.attn_norm_bias, self.eps)
        return super().finish(x, attended, adapter)

    def mlp(self, normed: Tensor) -> Tensor:
        """The MLP (..., d) of its normalized input, gated and normalized where the tower has it so."""
        hidden = F.linear(normed, self.mlp_c_fc_weight, self.mlp_c_fc_bias)
        if self.mlp_c_gate_weight is None:
            hidden = self.activation(hidden)
        else:
            hidden = F.silu(F.linear(normed, self.mlp_c_gate_weight, self.mlp_c_gate_bias)) * hidden
        if self.mlp_norm_weight is not None:
            hidden = layer_norm(hidden, self.mlp_norm_weight, self.mlp_norm_bias, self.eps)
        return F.linear(hidden, self.mlp_c_proj_weight, self.mlp_c_proj_bias)


def turned(x: Tensor) -> Tensor:
    """Pairs (a, b) of the last axis as (-b, a)."""
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
