"""The naive computation of prompted CLIP towers: every class at the full context length, open_clip's own blocks.

It is the oracle of the tests and the yardstick of the benchmarks, written for clarity only. Prompt positions follow
repo muzairkhattak/PromptSRC, clip/model.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def text_features(
    model: nn.Module, tokens: Tensor, context: Tensor | None = None, deep: Mapping[int, Tensor] | None = None
) -> Tensor:
    """Raw text features (K, D) of an open_clip model with context vectors at positions 1..n.

    Args:
        tokens: (K, L) token ids.
        context: (n, d) or (K, n, d); None for plain CLIP.
        deep: by block index, (n, d) or (K, n, d), what overwrites positions 1..n at the block's input.
    """
    x = model.token_embedding(tokens)
    if context is not None:
        x = _overwrite(x, context)
    x = x + model.positional_embedding
    for i, block in enumerate(model.transformer.resblocks):
        if deep and i in deep:
            x = _overwrite(x, deep[i])
        x = block(x, attn_mask=model.attn_mask)
    x = model.ln_final(x)
    return x[torch.arange(len(x)), tokens.argmax(dim=1)] @ model.text_projection


def image_features(
    model: nn.Module, images: Tensor, prompts: Tensor | None = None, deep: Mapping[int, Tensor] | None = None
) -> Tensor:
    """Raw image features (B, D) of an open_clip model with prompts behind the patch tokens."""
    visual = model.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    count = 0
    if prompts is not None:
        count = len(prompts)
        x = torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1)
    x = visual.ln_pre(x)
    for i, block in enumerate(visual.transformer.resblocks):
        if deep and i in deep:
            x = torch.cat([x[:, : x.shape[1] - count], deep[i].expand(len(x), -1, -1)], dim=1)
        x = block(x)
    return visual.ln_post(x)[:, 0] @ visual.proj


def _overwrite(x: Tensor, vectors: Tensor) -> Tensor:
    n = vectors.shape[-2]
    return torch.cat([x[:, :1], vectors.expand(len(x), -1, -1), x[:, 1 + n :]], dim=1)
