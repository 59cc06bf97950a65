"""The prompted vision tower (visual prompt tuning, deep variant).

Positions follow repo muzairkhattak/PromptSRC, clip/model.py. Prompt tokens come after the patch tokens. Those of block
0 are appended after the positional embedding is added and pass through ``ln_pre``. Those of block i >= 1 overwrite the
last tokens at the block's input and get neither.

A tower pools its class token, or its patches: their mean, or by attention. Prompts take part in the blocks' attention
and are not pooled, so a tower without prompts and its pooling stay what they were trained as.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.blocks import Block, BlockAdapter, Prompts, layer_norm, make_blocks
from cpt.clip.eva import EvaBlock
from cpt.clip.inside import Inside
from cpt.clip.pooling import AttentionPool


class VisionTower(nn.Module):
    """Frozen ViT of a CLIP model that takes prompts.

    Args:
        tensors: frozen weights by their open_clip names without the ``visual.`` prefix.
        spec: ``heads, layers, activation, eps, patch_size, image_size`` (``cpt.clip.export``). Where not the class
            token is pooled also ``pool`` (``mean`` or ``attention``, with what ``AttentionPool`` needs) and
            ``norm_last``: the pooled token is normalized instead of all; ``pool_first`` is the first token that is
            pooled, by default the first patch. Of timm's also their ``name``, for messages, and ``block``: ``eva``.
    """

    conv1_weight: Tensor
    conv1_bias: Tensor | None
    class_embedding: Tensor | None
    positional_embedding: Tensor
    ln_pre_weight: Tensor | None
    ln_pre_bias: Tensor
    ln_post_weight: Tensor
    ln_post_bias: Tensor
    proj: Tensor | None
    proj_bias: Tensor | None

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__()
        self.eps, self.patch_size, self.image_size = spec["eps"], spec["patch_size"], spec["image_size"]
        self.name = spec.get("name", "VisionTransformer")
        self.pool, self.norm_last = spec.get("pool", "token"), spec.get("norm_last", False)
        for name in ("conv1.weight", "conv1.bias", "class_embedding", "positional_embedding", "ln_pre.weight",
                     "ln_pre.bias", "ln_post.weight", "ln_post.bias", "proj", "proj_bias"):  # fmt: skip
            self.register_buffer(name.replace(".", "_"), tensors.get(name))
        self.blocks = make_blocks(tensors, spec, EvaBlock if spec.get("block") == "eva" else Block)
        self.first = spec.get("pool_first", 0 if self.class_embedding is None else 1)
        if self.pool == "attention":
            own = {name.removeprefix("attn_pool."): t for name, t in tensors.items() if name.startswith("attn_pool.")}
            self.attn_pool = AttentionPool(own, spec)

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return self.conv1_weight.shape[0]

    @property
    def inside(self) -> Inside:
        """What it offers to methods that change it."""
        return Inside(self.name, class_token=self.class_embedding is not None)

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
            tokens: return the pooled token and so many of the last prompts as they leave the tower, not features.

        Returns:
            Raw image features (B, D), or behind ``ln_post`` and before the projection the tokens (B, 1 + tokens, d);
            float32.
        """
        dtype = self.conv1_weight.dtype
        x = F.conv2d(images.to(dtype), self.conv1_weight, self.conv1_bias, stride=self.patch_size).flatten(2).mT
        batch = x.shape[0]
        if self.class_embedding is not None:
            x = torch.cat([self.class_embedding.expand(batch, 1, -1), x], dim=1)  # (B, 1 + patches, d)
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
            alone = self.pool == "token" and i == len(self.blocks) - 1  # no other token is read
            x = block(x, read=(tokens or 0) if alone else None, adapter=adapters.get(i))
        if self.pool != "token":
            return self._pooled(x, x.shape[1] - count, tokens)
        x = self._normed(x if tokens is not None else x[:, 0])
        return x.float() if tokens is not None else self.project(x)

    def _pooled(self, x: Tensor, prompts: int, tokens: int | None) -> Tensor:
        """What ``forward`` returns of all tokens (B, T, d) behind the blocks; the prompts begin at ``prompts``."""
        x = x if self.norm_last else self._normed(x)
        patches = x[:, self.first : prompts]
        pooled = patches.mean(dim=1) if self.pool == "mean" else self.attn_pool(patches)
        pooled = self._normed(pooled) if self.norm_last else pooled
        if tokens is None:
            return self.project(pooled)
        return torch.cat([pooled.unsqueeze(1), x[:, x.shape[1] - tokens :]], dim=1).float()

    def _normed(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.ln_post_weight, self.ln_post_bias, self.eps)

    def project(self, tokens: Tensor) -> Tensor:
        """Raw image features (..., D), float32, of class tokens (..., d) behind ``ln_post``."""
        x = tokens if self.proj is None else tokens.to(self.proj.dtype) @ self.proj
        return (x if self.proj_bias is None else x + self.proj_bias).float()
