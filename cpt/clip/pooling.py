"""The head of vision towers that pool by attention (MAP): one learned query attends to all patches, then an MLP."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.blocks import ACTIVATIONS, layer_norm


class AttentionPool(nn.Module):
    """``x + mlp(norm(x))`` of the attention's output x, as timm's ``AttentionPoolLatent`` with one query.

    Args:
        tensors: its weights by timm's names (``NAMES``).
        spec: ``pool_heads, pool_eps, pool_activation`` of the vision tower.
    """

    NAMES = (
        "latent", "q.weight", "q.bias", "kv.weight", "kv.bias", "proj.weight", "proj.bias",
        "norm.weight", "norm.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
    )  # fmt: skip

    latent: Tensor
    q_weight: Tensor
    q_bias: Tensor
    kv_weight: Tensor
    kv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    mlp_fc1_weight: Tensor
    mlp_fc1_bias: Tensor
    mlp_fc2_weight: Tensor
    mlp_fc2_bias: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__()
        self.heads, self.eps, self.activation = spec["pool_heads"], spec["pool_eps"], spec["pool_activation"]
        for name in self.NAMES:
            self.register_buffer(name.replace(".", "_"), tensors[name])

    def forward(self, patches: Tensor) -> Tensor:
        """(B, N, d) -> (B, d)."""
        query = F.linear(self.latent.flatten(0, 1), self.q_weight, self.q_bias).expand(len(patches), 1, -1)
        parts = (query, *F.linear(patches, self.kv_weight, self.kv_bias).chunk(2, dim=-1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1)
        x = F.linear(attended, self.proj_weight, self.proj_bias)
        hidden = F.linear(
            layer_norm(x, self.norm_weight, self.norm_bias, self.eps), self.mlp_fc1_weight, self.mlp_fc1_bias
        )
        return x + F.linear(ACTIVATIONS[self.activation](hidden), self.mlp_fc2_weight, self.mlp_fc2_bias)
