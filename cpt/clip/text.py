"""The prompted text tower, computed without padding and with the shared prefix only once.

The tower is causal, so a position depends only on earlier ones. Whatever follows a class's end token is never read, and
the positions that all K prompts share (start token, context vectors, common words) are the same for every class in
every block. They are computed once. Each class adds only its own tokens up to its end token; all of these are packed
into one matrix. The classes are padded to the longest one only inside the attention, which costs little.

Letters: K prompts, S shared prefix positions, N packed tokens (sum over the prompts of length - S), R longest
remainder (length - S), d width, n context vectors, h heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.blocks import Block, layer_norm, make_blocks


@dataclass(frozen=True)
class PackedPrompts:
    """K prompts cut at their end tokens, split into shared prefix and packed remainder.

    Slots mark the positions that hold learnable context vectors instead of token embeddings: slot j is row j of the
    context matrix given to ``TextTower.forward``; -1 is the token's frozen embedding.
    """

    prefix_tokens: Tensor  # (S,)
    prefix_learned: Tensor  # (2, .) prefix positions that hold context vectors, and their slots
    tokens: Tensor  # (N,)
    learned: Tensor  # (2, .) packed rows that hold context vectors, and their slots
    positions: Tensor  # (N,)
    last: Tensor  # (K,) packed row of each prompt's end token
    padded: Tensor  # (K, R) packed row of each position of the remainder; N where it is padding
    unpadded: Tensor  # (N,) position of each packed row in the flattened (K, R)

    @property
    def classes(self) -> int:
        """Number of prompts K."""
        return len(self.last)

    def to(self, device: torch.device | str) -> PackedPrompts:
        """Return the same prompts with their index tensors on a device."""
        return PackedPrompts(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def repeat(self, times: int) -> PackedPrompts:
        """Return the indices of ``times`` copies of the packed rows, one copy after the other: B * K prompts."""
        rows, places = len(self.tokens), self.padded.numel()
        copy = torch.arange(times, device=self.last.device)
        padded = torch.where(self.padded == rows, rows * times, self.padded + rows * copy[:, None, None])
        return replace(
            self,
            last=(self.last + rows * copy[:, None]).flatten(),
            padded=padded.flatten(0, 1),
            unpadded=(self.unpadded + places * copy[:, None]).flatten(),
        )


def pack_prompts(tokens: np.ndarray | Tensor, slots: np.ndarray | Sequence[Sequence[int]]) -> PackedPrompts:
    """Find the prefix that all prompts share and pack the remainder of each.

    Args:
        tokens: (K, L) token ids; the end token is the first occurrence of each row's largest id, as in CLIP.
        slots: (K, L) context slot of each position or -1.
    """
    ids, slot = np.asarray(tokens), np.asarray(slots)
    lengths = ids.argmax(axis=1) + 1  # up to and including the end token
    same = (slot == slot[0]).all(axis=0) & ((slot[0] >= 0) | (ids == ids[0]).all(axis=0))
    shared = len(same) if same.all() else int(np.argmin(same))
    shared = min(shared, int(lengths.min()) - 1)  # the end token is never shared
    own = lengths - shared
    inside = np.arange(own.max()) < own[:, None]  # (K, R)
    cls, offset = np.nonzero(inside)
    padded = np.full(inside.shape, len(cls))
    padded[inside] = np.arange(len(cls))
    pos = shared + offset
    tensor = torch.as_tensor
    return PackedPrompts(
        prefix_tokens=tensor(ids[0, :shared]).long(),
        prefix_learned=_learned(slot[0, :shared]),
        tokens=tensor(ids[cls, pos]).long(),
        learned=_learned(slot[cls, pos]),
        positions=tensor(pos).long(),
        last=tensor(np.cumsum(own) - 1).long(),
        padded=tensor(padded).long(),
        unpadded=tensor(np.flatnonzero(inside)).long(),
    )


def _learned(slots: np.ndarray) -> Tensor:
    rows = np.flatnonzero(slots >= 0)
    return torch.as_tensor(np.stack([rows, slots[rows]])).long()


class TextTower(nn.Module):
    """Frozen causal text transformer of a CLIP model that takes prompts.

    Args:
        tensors: frozen weights by their open_clip names.
        spec: ``heads, layers, activation, eps, context_length`` (``cpt.clip.export``).
    """

    token_embedding_weight: Tensor
    positional_embedding: Tensor
    ln_final_weight: Tensor
    ln_final_bias: Tensor
    text_projection: Tensor | None
    text_projection_bias: Tensor | None

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__()
        self.eps, self.context_length = spec["eps"], spec["context_length"]
        for name in ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias",
                     "text_projection", "text_projection_bias"):  # fmt: skip
            self.register_buffer(name.replace(".", "_"), tensors.get(name))
        self.blocks = make_blocks(tensors, spec)

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return self.positional_embedding.shape[1]

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the frozen embeddings (..., d) of token ids, without positions."""
        return self.token_embedding_weight[tokens]

    def forward(
        self, prompts: PackedPrompts, context: Tensor | None = None, deep: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """Encode K prompts.

        Args:
            prompts: the packed prompts.
            context: learnable vectors (slots, d) for the prompts' slots, or (B, slots, d) to encode the prompts under
                each of B contexts; None if there are no slots.
            deep: for each block i >= 1, the vectors that overwrite positions 1..n at the block's input
                (repo muzairkhattak/PromptSRC, clip/model.py): (n, d) for all classes, or (K, n, d) per class.

        Returns:
            Raw text features (K, D), or (B, K, D) for B contexts; float32.
        """
        prefix = self._input(prompts.prefix_tokens, prompts.prefix_learned, context)  # (1 or B, S, d)
        prefix = prefix + self.positional_embedding[: prefix.shape[1]]
        x = self._input(prompts.tokens, prompts.learned, context) + self.positional_embedding[prompts.positions]
        x = x.flatten(0, 1)
        contexts = len(prefix)
        if contexts > 1:
            prompts = prompts.repeat(contexts)
        shared, longest = prefix.shape[1], prompts.padded.shape[1]
        mask = torch.ones(longest, shared + longest, dtype=torch.bool, device=x.device).tril(shared)
        final = len(self.blocks) - 1
        for i, block in enumerate(cast("list[Block]", self.blocks)):
            if deep and i in deep:
                prefix = _replace(prefix, deep[i], prompts.classes)
            before = block.qkv(prefix)
            attended = _attend(block, before, block.qkv(x), prompts, mask)
            if i == final:  # from here on only end tokens are read
                x = block.finish(x[prompts.last], attended[prompts.last])
            else:
                x = block.finish(x, attended)
                q, k, v = (block.split_heads(part) for part in before)
                prefix = block.finish(prefix, _merge(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        x = layer_norm(x, self.ln_final_weight, self.ln_final_bias, self.eps)
        if self.text_projection is not None:
            x = x @ self.text_projection
        x = (x if self.text_projection_bias is None else x + self.text_projection_bias).float()
        return x.unflatten(0, (contexts, -1)) if context is not None and context.dim() == 3 else x

    def _input(self, tokens: Tensor, learned: Tensor, context: Tensor | None) -> Tensor:
        """Frozen embeddings with the context vectors in their slots: (1 or B, tokens, d)."""
        x = self.embed(tokens).unsqueeze(0)
        if context is None:
            return x
        vectors = context.to(x.dtype) if context.dim() == 3 else context.to(x.dtype).unsqueeze(0)
        x = x.expand(len(vectors), -1, -1)
        rows, slots = learned
        every = torch.arange(len(vectors), device=x.device).unsqueeze(1)
        return x.index_put((every, rows), vectors[:, slots]) if len(slots) else x


def _replace(prefix: Tensor, vectors: Tensor, classes: int) -> Tensor:
    """Overwrite positions 1..n of the prefix (1, B or K, S, d) by (n, d) or, per class, (K, n, d)."""
    count = vectors.shape[-2]
    if count + 1 > prefix.shape[1]:
        raise ValueError("deep prompts need context vectors that all prompts share at positions 1..n")
    if vectors.dim() == 3:
        prefix = prefix.expand(classes, -1, -1)
    replaced = vectors.to(prefix.dtype).expand(len(prefix), -1, -1)
    return torch.cat([prefix[:, :1], replaced, prefix[:, 1 + count :]], dim=1)


def _attend(
    block: Block, before: tuple[Tensor, ...], own: tuple[Tensor, ...], prompts: PackedPrompts, mask: Tensor
) -> Tensor:
    """Attention of the packed tokens (N, d) to the prefix and to their own prompt's earlier tokens.

    Args:
        before: queries, keys and values of the prefix, (1, B or K, S, d).
        own: queries, keys and values of the packed tokens, (N, d).
        mask: (R, S + R), True where a position may attend.
    """
    stacked = torch.cat(own, dim=1)
    stacked = torch.cat([stacked, stacked.new_zeros(1, stacked.shape[1])])  # row N: padding
    q, k, v = stacked[prompts.padded].chunk(3, dim=-1)  # (K, R, d)
    k, v = (
        torch.cat([_for_each(shared, prompts.classes), mine], dim=1)
        for shared, mine in zip(before[1:], (k, v), strict=True)
    )  # (K, S + R, d)
    q, k, v = (block.split_heads(part) for part in (q, k, v))
    return _merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)).flatten(0, 1)[prompts.unpadded]


def _for_each(shared: Tensor, classes: int) -> Tensor:
    """One prefix (1, B or K, S, d) for each prompt: (K, S, d), or (B * K, S, d)."""
    if len(shared) == 1:
        return shared.expand(classes, -1, -1)
    return shared.repeat_interleave(classes // len(shared), dim=0)


def _merge(x: Tensor) -> Tensor:
    """(..., h, T, d/h) -> (..., T, d)."""
    return x.transpose(-3, -2).flatten(-2)
