"""The prompted vision tower (visual prompt tuning, deep variant).

Positions follow repo muzairkhattak/PromptSRC, clip/model.py. Prompt tokens come after the patch tokens. Those of block
0 are appended after the positional embedding is added and pass through ``ln_pre``. Those of block i >= 1 overwrite the
last tokens at the block's input and get neither.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.blocks import BlockAdapter, Prompts, layer_norm, make_blocks


class VisionTower(nn.Module):
    """Frozen ViT of a CLIP model that takes prompts.

    Args:
        tensors: frozen weights by their open_clip names without the ``visual.`` prefix.
        spec: ``heads, layers, activation, eps, patch_size, image_size`` (``cpt.clip.export``).
    """

    conv1_weight: Tensor
    class_embedding: Tensor
    positional_embedding: Tensor
    ln_pre_weight: Tensor | None
    ln_pre_bias: Tensor
    ln_post_weight: Tensor
    ln_post_bias: Tensor
    proj: Tensor | None

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__()
        self.eps, self.patch_size, self.image_size = spec["eps"], spec["patch_size"], spec["image_size"]
        for name in ("conv1.weight", "class_embedding", "positional_embedding", "ln_pre.weight", "ln_pre.bias",
                     "ln_post.weight", "ln_post.bias", "proj"):  # fmt: skip
            self.register_buffer(name.replace(".", "_"), tensors.get(name))
        self.blocks = make_blocks(tensors, spec)

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return self.class_embedding.shape[0]

    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        deep: Mapping[int, Prompts] | None = None,
        adapters: Mapping[int, BlockAdapter] | None = None,
        *,
        tokens: int | None = None,
    ) -> Tensor:
        """Encode images.

        Args:
            images: (B, 3, H, W), normalized.
            prompts: block-0 prompts (n, d) or per image (B, n, d); None for none.
            deep: prompts of the blocks i >= 1 by block index, same shapes, or a function that makes them (B, n, d) from
                the class tokens (B, d) at the block's input. They replace those of earlier blocks; if there are none
                yet, they are appended.
            adapters: what a method adds to blocks, by block index.
            tokens: return the class token and so many of the last prompts as they leave the tower, instead of features.

        Returns:
            Raw image features (B, D), or behind ``ln_post`` and before the projection the tokens (B, 1 + tokens, d);
            float32.
        """
        dtype = self.conv1_weight.dtype
        patches = F.conv2d(images.to(dtype), self.conv1_weight, stride=self.patch_size).flatten(2).mT
        batch = patches.shape[0]
        x = torch.cat([self.class_embedding.expand(batch, 1, -1), patches], dim=1)  # (B, 1 + patches, d)
        x = x + self.positional_embedding
        count = 0
        if prompts is not None:
            count = prompts.shape[-2]
            x = torch.cat([x, prompts.to(dtype).expand(batch, -1, -1)], dim=1)
        if self.ln_pre_weight is not None:
            x = layer_norm(x, self.ln_pre_weight, self.ln_pre_bias, self.eps)
        adapters = adapters or {}
        for i, block in enumerate(self.blocks):
            if deep and i in deep:
                given = deep[i]
                vectors = given if isinstance(given, Tensor) else given(x[:, 0])
                kept, _ = x.split([x.shape[1] - count, count], dim=1)
                x = torch.cat([kept, vectors.to(dtype).expand(batch, -1, -1)], dim=1)
                count = vectors.shape[-2]
            x = block(x, read=(tokens or 0) if i == len(self.blocks) - 1 else None, adapter=adapters.get(i))
        x = layer_norm(x if tokens is not None else x[:, 0], self.ln_post_weight, self.ln_post_bias, self.eps)
        return x.float() if tokens is not None else self.project(x)

    def project(self, tokens: Tensor) -> Tensor:
        """Raw image features (..., D), float32, of class tokens (..., d) behind ``ln_post``."""
        return (tokens if self.proj is None else tokens.to(self.proj.dtype) @ self.proj).float()
