"""The pre-norm transformer block of CLIP as plain functions of frozen tensors.

Both prompted towers are written around these functions. The weights come from an unmodified open_clip model
(``cpt.clip.export``); they are buffers, so no weight gradient is ever computed.

Letters: B batch, T tokens, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

QUICK = 1.702
"""QuickGELU is x sigmoid(QUICK x) = silu(QUICK x) / QUICK."""

Prompts = Tensor | Callable[[Tensor], Tensor]
"""Prompts of a block, or a function that makes them from the tokens (B, d) at position 0 of its input."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": F.silu,  # of inputs scaled by QUICK, see ``Block``
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize the last axis of ``x`` (..., d); torch's kernels compute in float32 whatever its dtype."""
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def ends(x: Tensor, last: int) -> Tensor:
    """Return token 0 and the ``last`` last ones of (..., T, c): (..., 1 + last, c)."""
    first = x[..., :1, :]
    return torch.cat([first, x[..., x.shape[-2] - last :, :]], dim=-2) if last else first


class BlockAdapter(nn.Module):
    """What a method adds to a frozen block; each part returns what its last argument becomes, by default the same.

    Every part must treat each token by itself, whatever stands beside it: the text tower computes the tokens that all
    prompts share once, and in the last block only those that are read.
    """

    def qkv(self, normed: Tensor, qkv: Tensor) -> Tensor:
        """Queries, keys and values (..., 3d), computed from the block's normalized input (..., d)."""
        return qkv

    def projected(self, attended: Tensor, projected: Tensor) -> Tensor:
        """The attention's output (..., d) behind its projection, computed from that before it (..., d)."""
        return projected

    def output(self, block: Block, before: Tensor, between: Tensor, after: Tensor) -> Tensor:
        """The block's output (..., d), whose input was ``before``; ``between`` stands between attention and MLP."""
        return after


class Block(nn.Module):
    """One frozen residual attention block: ``x + attn(ln_1(x))``, then ``x + mlp(ln_2(x))``.

    Args:
        tensors: the block's weights by name (see ``NAMES``); layer-scale gains are optional.
        heads: number of attention heads.
        activation: a key of ``ACTIVATIONS``.
        eps: epsilon of both layer norms.
    """

    NAMES = (
        "ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight",
        "attn.out_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias",
        "mlp.c_proj.weight", "mlp.c_proj.bias",
    )  # fmt: skip
    OPTIONAL: tuple[str, ...] = ("ls_1.gamma", "ls_2.gamma")

    ln_1_weight: Tensor
    ln_1_bias: Tensor
    attn_in_proj_weight: Tensor
    attn_in_proj_bias: Tensor
    attn_out_proj_weight: Tensor
    attn_out_proj_bias: Tensor
    ln_2_weight: Tensor
    ln_2_bias: Tensor
    mlp_c_fc_weight: Tensor
    mlp_c_fc_bias: Tensor
    mlp_c_proj_weight: Tensor
    mlp_c_proj_bias: Tensor
    ls_1_gamma: Tensor | None
    ls_2_gamma: Tensor | None

    def __init__(self, tensors: dict[str, Tensor], heads: int, activation: str, eps: float) -> None:
        super().__init__()
        self.heads, self.activation, self.eps = heads, ACTIVATIONS[activation], eps
        if activation == "quick_gelu":  # fold its factor into the weights around it: one kernel instead of three
            up, down = ("mlp.c_fc.weight", "mlp.c_fc.bias"), "mlp.c_proj.weight"
            tensors = tensors | {name: tensors[name] * QUICK for name in up} | {down: tensors[down] / QUICK}
        for name in (*self.NAMES, *self.OPTIONAL):
            self.register_buffer(name.replace(".", "_"), tensors.get(name))

    def normed(self, x: Tensor) -> Tensor:
        """The input (..., d) as the attention reads it."""
        return layer_norm(x, self.ln_1_weight, self.ln_1_bias, self.eps)

    def qkv(self, x: Tensor, adapter: BlockAdapter | None = None) -> Tensor:
        """Return queries, keys and values (..., T, 3d) of the normalized input."""
        normed = self.normed(x)
        qkv = F.linear(normed, self.attn_in_proj_weight, self.attn_in_proj_bias)
        return qkv if adapter is None else adapter.qkv(normed, qkv)

    def attention(
        self, qkv: Tensor, *, causal: bool = False, read: int | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Attention of queries, keys and values (B, T, 3d): (B, T, d).

        Args:
            causal: every token sees itself and what stands before it.
            read: of token 0 and so many last ones alone, (B, 1 + read, d).
            mask: (B, 1, T, T), added to the scores.
        """
        parts = qkv.chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, h, T, d/h)
        q = q if read is None else ends(q, read)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return attended.transpose(1, 2).flatten(2)

    def finish(self, x: Tensor, attended: Tensor, adapter: BlockAdapter | None = None) -> Tensor:
        """Add the projected attention output (..., T, d) and the MLP to the residual stream ``x``."""
        projected = F.linear(attended, self.attn_out_proj_weight, self.attn_out_proj_bias)
        if adapter is not None:
            projected = adapter.projected(attended, projected)
        between = x + (projected if self.ls_1_gamma is None else projected * self.ls_1_gamma)
        hidden = self.mlp(layer_norm(between, self.ln_2_weight, self.ln_2_bias, self.eps))
        after = between + (hidden if self.ls_2_gamma is None else hidden * self.ls_2_gamma)
        return after if adapter is None else adapter.output(self, x, between, after)

    def mlp(self, normed: Tensor) -> Tensor:
        """The MLP (..., d) of its normalized input (..., d)."""
        hidden = self.activation(F.linear(normed, self.mlp_c_fc_weight, self.mlp_c_fc_bias))
        return F.linear(hidden, self.mlp_c_proj_weight, self.mlp_c_proj_bias)

    def forward(
        self, x: Tensor, *, causal: bool = False, read: int | None = None, adapter: BlockAdapter | None = None
    ) -> Tensor:
        """Dense attention over ``x`` (B, T, d).

        Args:
            causal: every token attends only to itself and earlier tokens.
            read: return only token 0 and so many last ones (B, 1 + read, d): others of the last block are never read.
            adapter: what a method adds to the block.
        """
        attended = self.attention(self.qkv(x, adapter), causal=causal, read=read)
        return self.finish(x if read is None else ends(x, read), attended, adapter)


def make_blocks(tensors: Mapping[str, Tensor], spec: Mapping[str, Any], kind: type[Block] = Block) -> nn.ModuleList:
    """Build the blocks of a tower from its tensors, named ``transformer.resblocks.<i>.<name>``.

    Args:
        kind: class of the blocks; ``rotary`` is a tensor of all of them.
    """
    shared = {name: tensors[name] for name in ("rotary",) if name in tensors}
    blocks = nn.ModuleList()
    for i in range(spec["layers"]):
        prefix = f"transformer.resblocks.{i}."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        blocks.append(kind(shared | own, spec["heads"], spec["activation"], spec["eps"]))
    return blocks
