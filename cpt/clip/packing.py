"""Prompts cut at their end tokens and arranged for the text tower: rows, groups, and the ways between them.

Rows are copied into groups and back by gathers whose gradients are gathers too. A sum over an index would sort on a
GPU, or not be deterministic.

Letters: K prompts, S shared prefix positions, N own tokens (sum over the prompts of length - S), R = S + N rows, G
groups of T positions, d width, B contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpt.clip.blocks import Block

GROUP = 128
"""Positions of a group, unless one prompt alone is longer: the tile of fused attention kernels."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Gather:
    """Rows by index, and the way back for their gradient.

    Attributes:
        index: (M,) the row that each place holds.
        inverse: (R,) the one place whose gradient a row gets.
        there: (R, 1) False for rows that get none.
    """

    index: Tensor
    inverse: Tensor
    there: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """(B, R, c) -> (B, M, c)."""
        return cast("Tensor", _Gather.apply(rows, self))

    def back(self, places: Tensor) -> Tensor:
        """(B, M, c) -> (B, R, c): rows that no place holds are zero."""
        return cast("Tensor", _Back.apply(places, self))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, gather: Gather) -> Tensor:
        ctx.gather = gather
        return rows.index_select(1, gather.index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.index_select(1, ctx.gather.inverse) * ctx.gather.there, None


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, places: Tensor, gather: Gather) -> Tensor:
        ctx.gather = gather
        return places.index_select(1, gather.inverse) * gather.there

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.index_select(1, ctx.gather.index), None


@dataclass(frozen=True)
class Groups:
    """Where rows stand in the groups of the attention.

    Attributes:
        shape: G and T.
        shared: S, length of the prefix that every group begins with; its rows are the first.
        row: (G * T,) row of each position; padding repeats row 0.
        collect: from the positions to the rows.
        mask: (G, 1, T, T) 0 where a position sees another, minus infinity elsewhere.
    """

    shape: tuple[int, int]
    shared: int
    row: Tensor
    collect: Gather
    mask: Tensor

    def spread(self, rows: Tensor) -> Tensor:
        """(B, R, c) -> (B * G, T, c)."""
        return cast("Tensor", _Spread.apply(rows, self)).unflatten(1, self.shape).flatten(0, 1)

    def attend(self, block: Block, rows: Tensor) -> Tensor:
        """Attention of queries, keys and values (B, R, 3d) of all rows: (B, R, d)."""
        batch = len(rows)
        mask = self.mask if batch == 1 else self.mask.repeat(batch, 1, 1, 1)
        attended = block.attention(self.spread(rows), mask=mask)
        return self.collect(attended.unflatten(0, (batch, -1)).flatten(1, 2))


class _Spread(torch.autograd.Function):
    """Copies of rows in groups; the prefix gets the sum over its copies, padding has no gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, groups: Groups) -> Tensor:
        ctx.groups = groups
        return rows.index_select(1, groups.row)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        groups: Groups = ctx.groups
        own = gradient.index_select(1, groups.collect.index[groups.shared :])
        if groups.shared == 0:
            return own, None
        prefix = gradient.unflatten(1, groups.shape)[:, :, : groups.shared].sum(dim=1)
        return torch.cat([prefix, own], dim=1), None


def group(prompt: Ids, row: Ids, shared: int, like: Tensor) -> Groups:
    """Put prompts one after another into groups behind a shared prefix, as many as there is room for.

    Args:
        prompt: (P,) prompt of each position behind the prefix, ascending.
        row: (P,) row of each of these positions.
        shared: length S of the prefix.
        like: a tensor of the mask's dtype and device.
    """
    lengths = np.bincount(prompt)
    member, first = np.zeros_like(lengths), np.zeros_like(lengths)  # group, and position in it, of each prompt
    for k, length in enumerate(lengths[:-1]):
        end = first[k] + length
        fits = shared + end + lengths[k + 1] <= GROUP
        member[k + 1], first[k + 1] = (member[k], end) if fits else (member[k] + 1, 0)
    groups = int(member[-1]) + 1
    # a multiple of 8: torch copies a mask with rows of another length in every call
    width = -(-(shared + int((first + lengths).max())) // 8) * 8
    inside = np.arange(len(prompt)) - (np.cumsum(lengths) - lengths)[prompt]
    position = member[prompt] * width + shared + first[prompt] + inside

    rows = np.zeros((groups, width), dtype=np.int64)
    rows[:, :shared] = np.arange(shared)
    rows.flat[position] = row
    owner = np.full((groups, width), -1)
    owner.flat[position] = prompt
    sees = owner[:, :, None] == owner[:, None, :]
    sees[:, :, :shared] = True
    back = np.arange(shared + len(prompt))
    back[row] = position
    there = np.zeros((rows.size, 1), dtype=bool)
    there[back] = True
    mask = np.where(sees & np.tri(width, dtype=bool), np.float32(0), np.float32(-np.inf))
    index, places, held = (torch.as_tensor(value).to(like.device) for value in (rows.ravel(), back, there))
    return Groups((groups, width), shared, index, Gather(places, index, held), torch.as_tensor(mask[:, None]).to(like))


def placement(held: Ids, slots: int, shared: int, like: Tensor) -> Tensor | Gather:
    """Where context vectors stand: (R, slots) 1 where a row holds one, or the row of every slot.

    The latter where there is a context per class, which would make K * n columns.

    Args:
        held: (R,) the slot of each row, -1 for none.
        slots: number of slots.
        shared: number of rows at the beginning that all prompts share.
        like: a tensor of the dtype and device that are wanted.
    """
    own = held[shared:]
    if slots and np.array_equal(np.sort(own[own >= 0]), np.arange(slots)) and (held[:shared] < 0).all():
        row, there = np.argsort(held, kind="stable")[-slots:], held[:, None] >= 0
        return Gather(*(torch.as_tensor(value).to(like.device) for value in (row, held.clip(0), there)))
    return torch.as_tensor(held[:, None] == np.arange(slots)).to(like)


class PackedPrompts:
    """K prompts cut at their end tokens: the prefix that they share first, then what each has of its own.

    Args:
        tokens: (K, L) token ids; the end token is the first occurrence of each row's largest id, as in CLIP.
        slots: (K, L) which positions hold context vectors instead of token embeddings: slot j means row j of the
            context given to ``TextTower.forward``, -1 the token's frozen embedding. None: all frozen.
        token_embedding: (vocabulary, d).
        positional_embedding: (L, d).

    Attributes:
        shared: length S of the prefix.
        frozen: (R, d) embeddings with positions; of context vectors the positions alone.
        placement: (R, slots) 1 where a row holds a context vector. Of a context per class, which would make K * n
            columns, the row of every slot.
        groups: the rows in groups.
        last: to the rows (K) of the end tokens.
    """

    def __init__(
        self, tokens: Tensor | Ids, slots: Ids | Sequence | None, token_embedding: Tensor, positional_embedding: Tensor
    ) -> None:
        ids = np.asarray(tokens)
        slot = np.full(ids.shape, -1) if slots is None else np.asarray(slots)
        lengths = ids.argmax(axis=1) + 1  # up to and including the end token
        same = (slot == slot[0]).all(axis=0) & ((slot[0] >= 0) | (ids == ids[0]).all(axis=0))
        shared = len(same) if same.all() else int(np.argmin(same))
        self.shared = shared = min(shared, int(lengths.min()) - 1)  # the end token is never shared
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        inside[:, :shared] = False
        self._prompt, own = np.nonzero(inside)
        prompt = np.concatenate([np.zeros(shared, dtype=int), self._prompt])
        position = np.concatenate([np.arange(shared), own])
        held = slot[prompt, position]  # (R,) the slot of each row
        like = self._like = positional_embedding
        self.placement = placement(held, int(slot.max()) + 1, shared, like)
        embedded = token_embedding[torch.as_tensor(ids[prompt, position]).to(like.device)]
        learned = torch.as_tensor(held[:, None] >= 0).to(like.device)
        self.frozen = embedded.masked_fill(learned, 0) + like[torch.as_tensor(position).to(like.device)]
        self.groups = group(self._prompt, shared + np.arange(len(own)), shared, like)
        self.last = self._ends(shared)
        self._apart: tuple[Groups, Gather] | None = None
        self._lengthened: dict[int, tuple[Groups, Gather]] = {}

    def __len__(self) -> int:
        return len(self.last.index)

    def place(self, context: Tensor) -> Tensor:
        """Context vectors (slots, d) or (B, slots, d) in their rows, zero in the others: (R, d) or (B, R, d)."""
        if isinstance(self.placement, Tensor):
            return self.placement @ context
        return self.placement.back(context) if context.dim() == 3 else self.placement.back(context[None]).squeeze(0)

    def apart(self) -> tuple[Groups, Gather]:
        """Groups and end tokens of rows with a prefix for each prompt: K * S of these, then the own tokens."""
        if self._apart is None:
            count, own = len(self), np.arange(len(self._prompt))
            prompt = np.concatenate([np.repeat(np.arange(count), self.shared), self._prompt])
            row = np.concatenate([np.arange(count * self.shared), count * self.shared + own])
            order = np.argsort(prompt, kind="stable")
            self._apart = group(prompt[order], row[order], 0, self._like), self._ends(count * self.shared)
        return self._apart

    def lengthened(self, count: int) -> tuple[Groups, Gather]:
        """Groups and end tokens of rows whose prefix has ``count`` positions more."""
        if count not in self._lengthened:
            shared = self.shared + count
            rows = shared + np.arange(len(self._prompt))
            self._lengthened[count] = group(self._prompt, rows, shared, self._like), self._ends(shared)
        return self._lengthened[count]

    def _ends(self, before: int) -> Gather:
        """Gather of the end tokens, where ``before`` rows precede the own tokens."""
        last = before + np.flatnonzero(np.diff(self._prompt, append=-1))
        there = np.zeros((before + len(self._prompt), 1), dtype=bool)
        there[last] = True
        owner = np.concatenate([np.zeros(before, dtype=int), self._prompt])
        return Gather(*(torch.as_tensor(value).to(self._like.device) for value in (last, owner, there)))
