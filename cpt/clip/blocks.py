"""The pre-norm transformer block of CLIP as plain functions of frozen tensors.

Both prompted towers are written around these functions. The weights come from an unmodified open_clip model
(``cpt.clip.export``); they are buffers, so no weight gradient is ever computed.

Letters: B batch, T tokens, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

QUICK = 1.702
"""QuickGELU is x sigmoid(QUICK x) = silu(QUICK x) / QUICK."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": F.silu,  # of inputs scaled by QUICK, see ``Block``
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize the last axis of ``x`` (..., d); torch's kernels compute in float32 whatever its dtype."""
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


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
    OPTIONAL = ("ls_1.gamma", "ls_2.gamma")

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

    def qkv(self, x: Tensor) -> Tensor:
        """Return queries, keys and values (..., T, 3d) of the normalized input."""
        normed = layer_norm(x, self.ln_1_weight, self.ln_1_bias, self.eps)
        return F.linear(normed, self.attn_in_proj_weight, self.attn_in_proj_bias)

    def attention(
        self, qkv: Tensor, *, causal: bool = False, only_first: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        """Attention of queries, keys and values (B, T, 3d): (B, T, d), or (B, 1, d) of token 0 alone.

        Args:
            causal: every token sees itself and what stands before it.
            only_first: of token 0 alone.
            mask: (B, 1, T, T), added to the scores.
        """
        parts = qkv.chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, h, T, d/h)
        q = q[:, :, :1] if only_first else q
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return attended.transpose(1, 2).flatten(2)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the projected attention output (..., T, d) and the MLP to the residual stream ``x``."""
        attended = F.linear(attended, self.attn_out_proj_weight, self.attn_out_proj_bias)
        x = x + (attended if self.ls_1_gamma is None else attended * self.ls_1_gamma)
        hidden = layer_norm(x, self.ln_2_weight, self.ln_2_bias, self.eps)
        hidden = self.activation(F.linear(hidden, self.mlp_c_fc_weight, self.mlp_c_fc_bias))
        hidden = F.linear(hidden, self.mlp_c_proj_weight, self.mlp_c_proj_bias)
        return x + (hidden if self.ls_2_gamma is None else hidden * self.ls_2_gamma)

    def forward(self, x: Tensor, *, causal: bool = False, only_first: bool = False) -> Tensor:
        """Dense attention over ``x`` (B, T, d).

        Args:
            causal: every token attends only to itself and earlier tokens.
            only_first: return only token 0 (B, 1, d): the rest of the last block is never read.
        """
        attended = self.attention(self.qkv(x), causal=causal, only_first=only_first)
        return self.finish(x[:, :1] if only_first else x, attended)


def make_blocks(tensors: Mapping[str, Tensor], spec: Mapping[str, Any]) -> nn.ModuleList:
    """Build the blocks of a tower from its tensors, named ``transformer.resblocks.<i>.<name>``."""
    blocks = nn.ModuleList()
    for i in range(spec["layers"]):
        prefix = f"transformer.resblocks.{i}."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        blocks.append(Block(own, spec["heads"], spec["activation"], spec["eps"]))
    return blocks
