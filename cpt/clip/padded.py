"""The prompted text tower for every mask and every pooling: whole prompts, padding and all.

Of a tower without a causal mask a position depends on all others, so nothing can be shared between classes as in
``cpt.clip.text``. Most see the padding, too, and some read their feature at the last position: nothing can be cut at
the end tokens then.

Letters: K prompts of L positions, R = K L rows, d width, n context vectors, B contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cpt.clip.blocks import Block, BlockAdapter, Prompts
from cpt.clip.foreign import own_rows
from cpt.clip.packing import Gather, Ids, placement
from cpt.clip.text import TextTower

POOLS = ("argmax", "eos", "last", "first")
"""Where a feature is read: at the end token (two names of it), at the last position, or at the first."""
MEAN = "mean"
"""Of the encoders of transformers also: over all positions but the padding."""


class PaddedPrompts:
    """K prompts of L positions, of the longest prompt alone where the tower does not see padding.

    Args:
        tokens: (K, L) token ids; the end token is the first occurrence of each row's largest id, as in CLIP. For a
            tower whose tokenizer has no start token one more, which it does not see.
        slots: (K, L) which positions hold context vectors, as for ``cpt.clip.packing.PackedPrompts``.
        tower: gives the embeddings and the pooling.

    Attributes:
        ids: (K, L) token ids as the tower sees them.
        frozen: (R, d) embeddings with positions; of context vectors the positions alone.
    """

    def __init__(self, tokens: Tensor | Ids, slots: Ids | Sequence | None, tower: PaddedTextTower) -> None:
        ids = np.asarray(tokens)
        slot, end = np.full(ids.shape, -1) if slots is None else np.asarray(slots), ids.argmax(axis=1)
        if tower.marks is not None:
            ids = own_rows(ids, tower.marks)
            slot, end = slot[:, slot.shape[1] - ids.shape[1] :], end - (slot.shape[1] - ids.shape[1])
        if not tower.sees_padding:
            ids, slot = ids[:, : end.max() + 1], slot[:, : end.max() + 1]
        held, self.ids = slot.ravel(), torch.as_tensor(ids)
        like = self._like = tower.positional_embedding
        self._placement = placement(held, int(held.max()) + 1, 0, like)
        learned = torch.as_tensor(held[:, None] >= 0).to(like.device)
        embedded = tower.embed(torch.as_tensor(ids.ravel()).to(like.device)).masked_fill(learned, 0)
        self.shape = ids.shape
        self.frozen = embedded + like[: ids.shape[1]].repeat(len(ids), 1)
        self._read = {"last": np.full(len(ids), ids.shape[1] - 1), "first": np.zeros_like(end)}.get(tower.pool, end)
        self._moves = tower.pool != "first"
        self._kept: dict[int, Gather] = {}
        self._padding = None if tower.sees_padding else np.arange(ids.shape[1]) > end[:, None]
        self._masks: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def place(self, context: Tensor) -> Tensor:
        """Context vectors (slots, d) or (B, slots, d) in their rows, zero in the others: (R, d) or (B, R, d)."""
        if isinstance(self._placement, Tensor):
            return self._placement @ context
        return self._placement.back(context) if context.dim() == 3 else self._placement.back(context[None]).squeeze(0)

    def read(self, inserted: int) -> Gather:
        """To the rows (K) where the features are read, of prompts that are longer by ``inserted`` positions."""
        if inserted not in self._kept:
            count, length = self.shape[0], self.shape[1] + inserted
            index = np.arange(count) * length + self._read + (inserted if self._moves else 0)
            there = np.zeros((count * length, 1), dtype=bool)
            there[index] = True
            parts = index, np.repeat(np.arange(count), length), there
            self._kept[inserted] = Gather(*(torch.as_tensor(part).to(self._like.device) for part in parts))
        return self._kept[inserted]

    def mask(self, inserted: int) -> Tensor | None:
        """(K, 1, 1, L) minus infinity where there is padding, of prompts that are longer by ``inserted`` positions.

        None where the tower sees padding, or there is none.
        """
        if self._padding is None or not self._padding.any():
            return None
        if inserted not in self._masks:
            padding = np.pad(self._padding, ((0, 0), (inserted, 0)))  # at its end, wherever they are inserted
            values = np.where(padding, np.float32(-np.inf), np.float32(0))
            self._masks[inserted] = torch.as_tensor(values)[:, None, None].to(self._like)
        return self._masks[inserted]

    def mean(self, x: Tensor, inserted: int) -> Tensor:
        """Mean of (..., L, d) over all positions but the padding: (..., d)."""
        mask = self.mask(inserted)
        if mask is None:
            return x.mean(dim=-2)
        there = mask.squeeze((1, 2)).exp().unsqueeze(-1)  # (K, L, 1)
        return (x * there).sum(dim=-2) / there.sum(dim=-2)


class PaddedTextTower(TextTower):
    """Frozen text transformer of any mask and pooling that takes prompts.

    Args:
        tensors: frozen weights by their open_clip names.
        spec: as for ``TextTower``, with ``causal`` and ``pool``, one of ``POOLS``; and ``marks`` of a tokenizer of
            transformers (``cpt.clip.foreign``).
    """

    sees_padding = True

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__(tensors, spec)
        self.causal, self.pool, self.marks = spec["causal"], spec["pool"], spec.get("marks")

    def enter(self, x: Tensor) -> Tensor:
        """What the first block gets of embeddings with positions (..., d)."""
        return x

    def pack(self, tokens: Tensor | Ids, slots: Ids | Sequence | None = None) -> Any:
        """Prepare prompts for ``forward``; see ``PaddedPrompts``."""
        return PaddedPrompts(tokens, slots, self)

    def forward(
        self,
        prompts: Any,
        context: Tensor | None = None,
        deep: Mapping[int, Prompts] | None = None,
        adapters: Mapping[int, BlockAdapter] | None = None,
        *,
        insert: bool = False,
    ) -> Tensor:
        """Encode K prompts; arguments and result as those of ``TextTower``.

        Start tokens differ between classes here: a function in ``deep`` gets those of all prompts, (B K, d), and makes
        (n, d) or (B K, n, d). Deep prompts overwrite the first n positions behind the start token, if there is one.
        """
        first = 1 if self.marks is None or "start" in self.marks else 0
        x = prompts.frozen
        if context is not None:
            x = x + prompts.place(context.to(x.dtype))
        x = self.enter(x)
        contexts = len(x) if x.dim() == 3 else 1
        x = x.reshape(contexts * len(prompts), -1, self.width)  # (B K, L, d)
        adapters, inserted = adapters or {}, 0
        for i, block in enumerate(cast("list[Block]", self.blocks)):
            if deep and i in deep:
                given = deep[i]
                if not isinstance(given, Tensor) and first == 0:
                    raise ValueError("prompts made from start tokens need a tower that has them")
                vectors = (given if isinstance(given, Tensor) else given(x[:, 0])).to(x.dtype)
                if vectors.dim() == 3 and len(vectors) != len(x):
                    raise ValueError("deep prompts per class go with one context")
                new = insert and not inserted
                inserted += vectors.shape[-2] if new else 0
                behind = first if new else first + vectors.shape[-2]
                x = torch.cat([x[:, :first], vectors.expand(len(x), -1, -1), x[:, behind:]], dim=1)
            mask = prompts.mask(inserted)
            if mask is not None and contexts > 1:
                mask = mask.repeat(contexts, 1, 1, 1)
            attended = block.attention(block.qkv(x, adapters.get(i)), causal=self.causal, mask=mask)
            if i == len(self.blocks) - 1:
                x, attended = (rows.reshape(contexts, -1, self.width) for rows in (x, attended))
                if self.pool != MEAN:  # from here on only one token of each prompt is read
                    read = prompts.read(inserted)
                    x, attended = read(x), read(attended)
            x = block.finish(x, attended, adapters.get(i))
        x = self.normed(x)
        if self.pool == MEAN:
            x = prompts.mean(x.unflatten(1, (len(prompts), -1)), inserted)
        x = self.project(x)
        return x if context is not None and context.dim() == 3 else x.squeeze(0)
