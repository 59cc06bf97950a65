"""The prompted text tower for every mask and every pooling: whole prompts, padding and all.

Of a tower without a causal mask a position depends on all others, the padding too, so nothing can be shared between
classes or cut at the end tokens as in ``cpt.clip.text``. The same goes for a feature that is read at the last position.

Letters: K prompts of L positions, R = K L rows, d width, n context vectors, B contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cpt.clip.blocks import Block, BlockAdapter, Prompts, layer_norm
from cpt.clip.foreign import own_rows
from cpt.clip.packing import Gather, Ids, placement
from cpt.clip.text import TextTower

POOLS = ("argmax", "eos", "last", "first")
"""Where a feature is read: at the end token (two names of it), at the last position, or at the first."""


class PaddedPrompts:
    """K prompts of L positions.

    Args:
        tokens: (K, L) token ids; the end token is the first occurrence of each row's largest id, as in CLIP. For a
            tower with a tokenizer of transformers one more, the start token, which it does not see.
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
            ids, slot, end = own_rows(ids, tower.marks), slot[:, 1:], end - 1
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


class PaddedTextTower(TextTower):
    """Frozen text transformer of any mask and pooling that takes prompts.

    Args:
        tensors: frozen weights by their open_clip names.
        spec: as for ``TextTower``, with ``causal`` and ``pool``, one of ``POOLS``; and ``marks`` of a tokenizer of
            transformers (``cpt.clip.foreign``), which has no start token.
    """

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__(tensors, spec)
        self.causal, self.pool, self.marks = spec["causal"], spec["pool"], spec.get("marks")

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
        first = 1 if self.marks is None else 0
        x = prompts.frozen
        if context is not None:
            x = x + prompts.place(context.to(x.dtype))
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
            attended = block.attention(block.qkv(x, adapters.get(i)), causal=self.causal)
            if i == len(self.blocks) - 1:  # from here on only one token of each prompt is read
                read = prompts.read(inserted)
                x, attended = (read(rows.reshape(contexts, -1, self.width)) for rows in (x, attended))
            x = block.finish(x, attended, adapters.get(i))
        x = self.project(layer_norm(x, self.ln_final_weight, self.ln_final_bias, self.eps))
        return x if context is not None and context.dim() == 3 else x.squeeze(0)
