"""The prompted text tower, computed without padding and with the shared prefix once.

The tower is causal, so a position depends only on what stands before it: everything after a class's end token is
never read, and the positions that all K prompts share (start token, context vectors, common words) are the same for
every class in every block. They are computed once; each class adds only its own tokens up to its end token. Classes
of one length are attended to together, everything else (norms, projections, MLP) runs on one packed matrix.

Letters: K prompts, S shared prefix positions, N packed tokens (sum over the prompts of length - S), d width, n
context vectors, h heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpt.clip.blocks import Block, layer_norm
from cpt.clip.vision import block_tensors


@dataclass(frozen=True)
class Group:
    """Prompts of one length: rows ``start:stop`` of the packed matrix are ``count`` prompts of ``length`` tokens."""

    start: int
    stop: int
    count: int
    length: int


@dataclass(frozen=True)
class PackedPrompts:
    """K prompts cut at their end tokens, split into shared prefix and packed remainder.

    Slots say which positions hold learnable context vectors instead of token embeddings: slot j means row j of the
    context matrix given to ``TextTower.forward``; -1 means the token's frozen embedding.
    """

    prefix_tokens: Tensor  # (S,)
    prefix_learned: Tensor  # (2, .) prefix positions that hold context vectors, and their slots
    tokens: Tensor  # (N,)
    learned: Tensor  # (2, .) packed rows that hold context vectors, and their slots
    positions: Tensor  # (N,)
    last: Tensor  # (K,) packed row of each prompt's end token, in group order
    order: Tensor  # (K,) group order -> class; the inverse restores the caller's order
    inverse: Tensor  # (K,)
    groups: tuple[Group, ...]

    @property
    def classes(self) -> int:
        """Number of prompts K."""
        return len(self.order)

    def to(self, device: torch.device | str) -> PackedPrompts:
        """Return the same prompts with their index tensors on a device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return PackedPrompts(**moved, groups=self.groups)


def pack_prompts(tokens: np.ndarray | Tensor, slots: np.ndarray | Sequence[Sequence[int]]) -> PackedPrompts:
    """Group prompts by length and find the prefix that all share.

    Args:
        tokens: (K, L) token ids; the end token is the first occurrence of each row's largest id, as in CLIP.
        slots: (K, L) context slot of each position or -1.
    """
    ids, slot = np.asarray(tokens), np.asarray(slots)
    lengths = ids.argmax(axis=1) + 1  # up to and with the end token
    same = (slot == slot[0]).all(axis=0) & ((slot[0] >= 0) | (ids == ids[0]).all(axis=0))
    shared = len(same) if same.all() else int(np.argmin(same))
    shared = min(shared, int(lengths.min()) - 1)  # the end token is always a prompt's own
    order = np.argsort(lengths, kind="stable")
    rows = [(c, p) for c in order for p in range(shared, lengths[c])]
    cls, pos = np.array(rows).T
    groups, start = [], 0
    for length in np.unique(lengths):
        count = int((lengths == length).sum())
        stop = start + count * int(length - shared)
        groups.append(Group(start, stop, count, int(length - shared)))
        start = stop
    tensor = torch.as_tensor
    return PackedPrompts(
        prefix_tokens=tensor(ids[0, :shared]).long(),
        prefix_learned=_learned(slot[0, :shared]),
        tokens=tensor(ids[cls, pos]).long(),
        learned=_learned(slot[cls, pos]),
        positions=tensor(pos).long(),
        last=tensor(np.cumsum(lengths[order] - shared) - 1).long(),
        order=tensor(order).long(),
        inverse=tensor(np.argsort(order, kind="stable")).long(),
        groups=tuple(groups),
    )


def _learned(slots: np.ndarray) -> Tensor:
    rows = np.flatnonzero(slots >= 0)
    return torch.as_tensor(np.stack([rows, slots[rows]])).long()


class TextTower(nn.Module):
    """Frozen causal text transformer of a CLIP model with room for prompts.

    Args:
        tensors: frozen weights by their open_clip names.
        spec: ``heads, layers, activation, eps, context_length`` (``cpt.clip.export``).
    """

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__()
        self.eps, self.context_length = spec["eps"], spec["context_length"]
        for name in ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias",
                     "text_projection", "text_projection_bias"):  # fmt: skip
            self.register_buffer(name.replace(".", "_"), tensors.get(name))
        self.blocks = nn.ModuleList(
            Block(block_tensors(tensors, i), spec["heads"], spec["activation"], spec["eps"])
            for i in range(spec["layers"])
        )

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
            context: learnable vectors (slots, d) that the prompts' slots refer to; None when there are no slots.
            deep: for block i >= 1 the vectors that overwrite the context positions 1..n at the block's input
                (repo muzairkhattak/PromptSRC, clip/model.py): (n, d) for all classes, or (K, n, d) per class.

        Returns:
            Raw text features (K, D), float32, in the caller's class order.
        """
        prefix = self._input(prompts.prefix_tokens, prompts.prefix_learned, context)
        prefix = (prefix + self.positional_embedding[: len(prefix)]).unsqueeze(0)  # (1, S, d); (K, S, d) later on
        x = self._input(prompts.tokens, prompts.learned, context) + self.positional_embedding[prompts.positions]
        for i, block in enumerate(self.blocks):
            if deep and i in deep:
                prefix = self._replace(prefix, deep[i], prompts)
            prefix, x = self._attend(block, prefix, x, prompts, last=i == len(self.blocks) - 1)
        x = layer_norm(x, self.ln_final_weight, self.ln_final_bias, self.eps)[prompts.inverse]
        if self.text_projection is not None:
            x = x @ self.text_projection
        return (x if self.text_projection_bias is None else x + self.text_projection_bias).float()

    def _input(self, tokens: Tensor, learned: Tensor, context: Tensor | None) -> Tensor:
        """Frozen embeddings with the context vectors put into their slots: (tokens, d)."""
        x = self.embed(tokens)
        if context is None or learned.shape[1] == 0:
            return x
        rows, slots = learned
        return x.index_put((rows,), context.to(x.dtype)[slots])

    def _replace(self, prefix: Tensor, vectors: Tensor, prompts: PackedPrompts) -> Tensor:
        """Overwrite positions 1..n of the prefix (P, S, d) by (n, d) or, per class, (K, n, d)."""
        count = vectors.shape[-2]
        if count + 1 > prefix.shape[1]:
            raise ValueError("deep prompts need context vectors that all prompts share at positions 1..n")
        if vectors.dim() == 3:
            vectors = vectors[prompts.order]
            prefix = prefix.expand(len(vectors), -1, -1)
        replaced = vectors.to(prefix.dtype).expand(len(prefix), -1, -1)
        return torch.cat([prefix[:, :1], replaced, prefix[:, 1 + count :]], dim=1)

    def _attend(
        self, block: Block, prefix: Tensor, x: Tensor, prompts: PackedPrompts, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Run one block on prefix (P, S, d) and packed tokens (N, d); the last block keeps only end tokens (K, d)."""
        q_prefix, k_prefix, v_prefix = (block.split_heads(part) for part in block.qkv(prefix))  # (P, h, S, d/h)
        q, k, v = block.qkv(x)
        outputs, first = [], 0
        for group in prompts.groups:
            rows = slice(first, first + group.count)
            first += group.count
            heads = [
                block.split_heads(part[group.start : group.stop].unflatten(0, (group.count, group.length)))
                for part in (q, k, v)
            ]  # (G, h, length, d/h)
            if last:
                heads[0] = heads[0][:, :, -1:]
            shared = [part[rows] if len(part) > 1 else part for part in (k_prefix, v_prefix)]
            keys, values = (
                torch.cat([before.expand(group.count, -1, -1, -1), own], dim=2)
                for before, own in zip(shared, heads[1:], strict=True)
            )
            mask = None
            if not last and group.length > 1:
                mask = x.new_ones(group.length, keys.shape[2], dtype=torch.bool).tril(prefix.shape[1])
            attended = F.scaled_dot_product_attention(heads[0], keys, values, attn_mask=mask)
            outputs.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
        attended = torch.cat(outputs)
        if last:
            return prefix, block.finish(x[prompts.last], attended)
        before = F.scaled_dot_product_attention(q_prefix, k_prefix, v_prefix, is_causal=True)
        return block.finish(prefix, before.transpose(1, 2).flatten(2)), block.finish(x, attended)
