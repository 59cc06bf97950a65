"""The prompted text tower, computed without padding and with the shared prefix only once.

The tower is causal, so a position depends only on earlier ones. Whatever follows a class's end token is never read, and
the positions that all K prompts share (start token, context vectors, common words) are the same for every class in
every block. They are computed once; each class adds only its own tokens up to its end token. Prefix and own tokens are
the rows of one matrix, and everything but the attention works on it. For the attention, classes are put into groups:
each group begins with a copy of the prefix, and a mask keeps its classes apart. A fused attention kernel works on tiles
of 128 positions; a class alone would leave most of a tile empty.

Letters: K prompts, S shared prefix positions, N own tokens (sum over the prompts of length - S), R = S + N rows, d
width, n context vectors, B contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from cpt.clip.blocks import Block, BlockAdapter, Prompts, layer_norm, make_blocks
from cpt.clip.packing import Ids, PackedPrompts


class TextTower(nn.Module):
    """Frozen causal text transformer of a CLIP model that takes prompts.

    Args:
        tensors: frozen weights by their open_clip names.
        spec: ``heads, layers, activation, eps, context_length`` (``cpt.clip.export``).
    """

    token_embedding_weight: Tensor
    positional_embedding: Tensor
    ln_final_weight: Tensor | None
    ln_final_bias: Tensor
    text_projection: Tensor | None
    text_projection_bias: Tensor | None

    BLOCK: ClassVar[type[Block]] = Block

    def __init__(self, tensors: Mapping[str, Tensor], spec: Mapping) -> None:
        super().__init__()
        self.eps, self.context_length = spec["eps"], spec["context_length"]
        for name in ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias",
                     "text_projection", "text_projection_bias"):  # fmt: skip
            self.register_buffer(name.replace(".", "_"), tensors.get(name))
        self.blocks = make_blocks(tensors, spec, self.BLOCK)

    @property
    def width(self) -> int:
        """Width d of the residual stream."""
        return self.positional_embedding.shape[1]

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the frozen embeddings (..., d) of token ids, without positions."""
        return self.token_embedding_weight[tokens]

    def pack(self, tokens: Tensor | Ids, slots: Ids | Sequence | None = None) -> PackedPrompts:
        """Prepare prompts for ``forward``; see ``PackedPrompts``."""
        return PackedPrompts(tokens, slots, self.token_embedding_weight, self.positional_embedding)

    def forward(
        self,
        prompts: PackedPrompts,
        context: Tensor | None = None,
        deep: Mapping[int, Prompts] | None = None,
        adapters: Mapping[int, BlockAdapter] | None = None,
        *,
        insert: bool = False,
    ) -> Tensor:
        """Encode K prompts.

        Args:
            prompts: the packed prompts.
            context: learnable vectors (slots, d) for the prompts' slots, or (B, slots, d) to encode the prompts under
                each of B contexts; None if there are no slots.
            deep: for each block i >= 1, the vectors that overwrite positions 1..n at the block's input
                (repo muzairkhattak/PromptSRC, clip/model.py): (n, d) for all classes or, with one
                context, (K, n, d) per class; or a function that makes (n, d) from the start tokens (B, d) there, with
                ``insert`` also (B, n, d).
            adapters: what a method adds to blocks, by block index.
            insert: the vectors of the first block of ``deep`` overwrite nothing; they come in between the start token
                and what follows it, so all prompts are longer by n from there on.

        Returns:
            Raw text features (K, D), or (B, K, D) for B contexts; float32.
        """
        x = prompts.frozen
        if context is not None:
            x = x + prompts.place(context.to(x.dtype))
        x = x if x.dim() == 3 else x.unsqueeze(0)  # (B, R, d)
        adapters, inserted = adapters or {}, 0
        groups, last = prompts.groups, prompts.last
        for i, block in enumerate(cast("list[Block]", self.blocks)):
            if deep and i in deep:
                given = deep[i]
                vectors = (given if isinstance(given, Tensor) else given(x[:, 0])).to(x.dtype)
                if insert and not inserted:
                    inserted = vectors.shape[-2]
                    x = torch.cat([x[:, :1], vectors.expand(len(x), -1, -1), x[:, 1:]], dim=1)
                    groups, last = prompts.lengthened(inserted)
                else:
                    if vectors.dim() == 3 and groups is prompts.groups:
                        if len(x) > 1:
                            raise ValueError("deep prompts per class go with one context")
                        x = _repeat_prefix(x, prompts)
                        groups, last = prompts.apart()
                    x = _overwrite(x, vectors, prompts, inserted)
            attended = groups.attend(block, block.qkv(x, adapters.get(i)))
            if i == len(self.blocks) - 1:  # from here on only end tokens are read
                x, attended = last(x), last(attended)
            x = block.finish(x, attended, adapters.get(i))
        x = self.project(self.normed(x))
        return x if context is not None and context.dim() == 3 else x.squeeze(0)

    def normed(self, tokens: Tensor) -> Tensor:
        """Tokens (..., d) of the last block behind ``ln_final``, if the tower has it."""
        if self.ln_final_weight is None:
            return tokens
        return layer_norm(tokens, self.ln_final_weight, self.ln_final_bias, self.eps)

    def project(self, tokens: Tensor) -> Tensor:
        """Raw text features (..., D), float32, of tokens (..., d) that ``normed`` returned."""
        x = tokens if self.text_projection is None else tokens @ self.text_projection
        return (x if self.text_projection_bias is None else x + self.text_projection_bias).float()


def _repeat_prefix(x: Tensor, prompts: PackedPrompts) -> Tensor:
    """(1, S + N, d) -> (1, K * S + N, d)."""
    prefix, own = x.split([prompts.shared, x.shape[1] - prompts.shared], dim=1)
    return torch.cat([prefix.repeat(1, len(prompts), 1), own], dim=1)


def _overwrite(x: Tensor, vectors: Tensor, prompts: PackedPrompts, inserted: int) -> Tensor:
    """Overwrite positions 1..n of the one prefix by (n, d), or of each of K prefixes by (n, d) or (K, n, d).

    Args:
        inserted: number of positions by which the one prefix was made longer.
    """
    shared, count = prompts.shared + inserted, vectors.shape[-2]
    if count + 1 > shared:
        raise ValueError("deep prompts need context vectors that all prompts share at positions 1..n")
    if x.shape[1] == len(prompts.frozen) + inserted:
        first, _, rest = x.split([1, count, x.shape[1] - 1 - count], dim=1)
        return torch.cat([first, vectors.expand(len(x), -1, -1), rest], dim=1)
    prefixes, own = x.split([len(prompts) * shared, x.shape[1] - len(prompts) * shared], dim=1)
    first, _, words = prefixes.view(len(prompts), shared, -1).split([1, count, shared - 1 - count], dim=1)
    replaced = torch.cat([first, vectors.expand(len(prompts), -1, -1), words], dim=1)
    return torch.cat([replaced.view(1, -1, x.shape[2]), own], dim=1)
