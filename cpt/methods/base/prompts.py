"""Learnable prompts that methods share: text context (shallow and deep) and visual prompts.

Shapes and initial values follow repo muzairkhattak/PromptSRC, trainers/independentVL.py and clip/model.py, and repo
KaiyangZhou/CoOp, trainers/coop.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from cpt.clip.backbone import Clip
from cpt.clip.packing import PackedPrompts
from cpt.clip.text import TextTower
from cpt.clip.vision import VisionTower
from cpt.errors import CptError
from cpt.features.text import Classes

STD = 0.02
"""Standard deviation of random initial prompts in every reference code."""


def require_depth(setting: str, depth: int, name: str, tower: TextTower | VisionTower) -> None:
    """Refuse a prompt depth greater than the number of a tower's blocks.

    Args:
        setting: hyperparameter that gives ``depth``.
        depth: number of prompted blocks.
        name: ``text`` or ``vision``.
        tower: the tower of this name.

    Raises:
        CptError: the tower has fewer blocks.
    """
    blocks = len(tower.blocks)
    if depth > blocks:
        raise CptError(
            f"prompt depth {depth} exceeds the {name} tower's {blocks} blocks; set {setting} to at most {blocks}"
        )


def require_block(setting: str, block: int, name: str, tower: TextTower | VisionTower) -> None:
    """Refuse the number of a block, from 0, that a tower does not have.

    Raises:
        CptError: the tower has no such block.
    """
    if block >= len(tower.blocks):
        raise CptError(f"{setting} {block}: the {name} tower has the blocks 0 to {len(tower.blocks) - 1}; lower it")


def block_range(first: int, last: int, clip: Clip) -> range:
    """Return the blocks from ``first_block`` to ``last_block``, numbered from 0, which both towers must have.

    Raises:
        CptError: a tower lacks them, or the last comes before the first.
    """
    if last < first:
        raise CptError(f"last_block {last}: comes before first_block {first}; raise it")
    for name, tower in (("text", clip.text), ("vision", clip.vision)):
        require_block("last_block", last, name, tower)
    return range(first, last + 1)


class Packed:
    """Prompts of classes, packed once and kept as long as the classes: the graph of a step reads them, too."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Classes, PackedPrompts] = WeakKeyDictionary()

    def __call__(self, classes: Classes, pack: Callable[[], PackedPrompts]) -> PackedPrompts:
        """The packed prompts of the classes; ``pack`` makes them at the first call."""
        if classes not in self._kept:
            self._kept[classes] = pack()
        return self._kept[classes]


class TextPrompts(nn.Module):
    """n context vectors in the input and, for each of the blocks 1..depth-1, n more that overwrite them.

    Args:
        clip: the frozen backbone.
        classes: classes whose tokens hold the initial words.
        count: n, number of context vectors.
        depth: number of prompted blocks; 1 prompts the input only.
        words: start from the embeddings of ``a photo of a``, if n is at most its length; words beyond the n vectors
            stay as frozen embeddings. Otherwise the vectors start random, and there are no words.
        position: position of the class name: ``end``, ``middle`` or ``front`` (shallow prompts only).
        per_class: a separate context for every class (K, n, d).
        dataset_template: end the prompt like the dataset's template, as in ``a photo of a {}, a type of flower.``
        generator: random stream of the initial values.
        setting: hyperparameter that gives ``depth``, for messages.
    """

    def __init__(
        self,
        clip: Clip,
        classes: Classes,
        count: int,
        depth: int,
        generator: torch.Generator,
        *,
        words: bool = True,
        position: str = "end",
        per_class: bool = False,
        dataset_template: bool = False,
        setting: str = "depth",
    ) -> None:
        super().__init__()
        tower = clip.text
        require_depth(setting, depth, "text", tower)
        self.clip = clip
        self.count, self.depth, self.position, self.dataset_template = count, depth, position, dataset_template
        self.words = words and count <= classes.phrase_length
        shape = (len(classes), count, tower.width) if per_class else (count, tower.width)
        if self.words:
            initial = tower.embed(classes.tokens[0, 1 : 1 + count].to(tower.positional_embedding.device)).float()
            self.context = nn.Parameter(initial.expand(shape).clone())
        else:
            self.context = nn.Parameter(torch.empty(shape).normal_(std=STD, generator=generator))
        self.deep = nn.ParameterList(
            torch.empty(count, tower.width).normal_(std=STD, generator=generator) for _ in range(1, depth)
        )
        self.packed = Packed()
        self._only_for = classes.names if per_class else None

    def forward(
        self,
        classes: Classes,
        *,
        shift: Tensor | None = None,
        deep: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Raw text features (K, D) of the classes under these prompts.

        Args:
            shift: (B, d), to encode the classes under B contexts, each shifted by one of these; gives (B, K, D).
            deep: further vectors by block, which overwrite positions 1..n at its input; see ``TextTower``.
        """
        if self._only_for is not None and classes.names != self._only_for:
            raise CptError("per_class: a context per class cannot be used for other classes than the trained ones")
        tower = self.clip.text
        packed = self.packed(classes, lambda: tower.pack(*self.layout(classes, tower.context_length)))
        context = self.context if shift is None else self.context + shift.unsqueeze(1)
        stacked = torch.stack(list(self.deep)).to(self.clip.dtype).unbind() if len(self.deep) else ()  # one cast
        own = dict(enumerate(stacked, start=1))
        if self.context.dim() == 3:  # a context per class: all of them are slots
            context = context.flatten(0, 1)
        return tower(packed, context, own | dict(deep or {}))

    def layout(self, classes: Classes, context_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and context slots (K, L) of the classes' prompts.

        Raises:
            CptError: a prompt is too long for the context; names the class.
        """
        rows_ids, rows_slots = [], []
        tokens_of = classes.dataset_tokens if self.dataset_template else classes.tokens
        for k, row in enumerate(tokens_of.numpy()):
            end, begin = int(row.argmax()), 1 + classes.phrase_length
            split = min(begin + int(classes.name_lengths[k]), end)
            start, name, stop = int(row[0]), list(row[begin:split]), [int(t) for t in row[split : end + 1]]
            offset = k * self.count if self.context.dim() == 3 else 0
            context = [(0, offset + j) for j in range(self.count)]
            if self.words and self.position == "end":
                kept = [(int(t), -1) for t in row[1 + self.count : 1 + classes.phrase_length]]
                context = context + kept
            tokens = [(int(t), -1) for t in name]
            half = self.count // 2 if self.position == "middle" else 0
            body = context + tokens if self.position == "end" else context[:half] + tokens + context[half:]
            sequence = [(start, -1), *body, *((t, -1) for t in stop)]
            if len(sequence) > context_length:
                raise CptError(
                    f"class {classes.names[k]!r} with {self.count} context vectors needs {len(sequence)} tokens, the "
                    f"backbone's context has {context_length}; shorten the name or use fewer vectors"
                )
            padding = [(0, -1)] * (context_length - len(sequence))
            ids, slots = zip(*sequence, *padding, strict=True)
            rows_ids.append(ids)
            rows_slots.append(slots)
        return np.array(rows_ids), np.array(rows_slots)


class VisualPrompts(nn.Module):
    """n visual prompt tokens for each of the blocks 0..depth-1, all N(0, 0.02²).

    Args:
        clip: the frozen backbone.
        count: n, number of tokens.
        depth: number of prompted blocks; 0 leaves the tower unprompted.
        generator: random stream of the initial values.
    """

    def __init__(self, clip: Clip, count: int, depth: int, generator: torch.Generator) -> None:
        super().__init__()
        require_depth("depth_vision", depth, "vision", clip.vision)
        self.clip = clip
        self.prompts = nn.ParameterList(
            torch.empty(count, clip.vision.width).normal_(std=STD, generator=generator) for _ in range(depth)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Raw image features (B, D) of images (B, 3, H, W) under these prompts."""
        if len(self.prompts) == 0:
            with torch.no_grad():
                return self.clip.vision(images)
        stacked = torch.stack(list(self.prompts)).to(self.clip.dtype)  # one cast, and one sum over the images
        first, *deep = stacked.unsqueeze(1).expand(-1, images.shape[0], -1, -1).unbind()
        return self.clip.vision(images, first, dict(enumerate(deep, start=1)))
