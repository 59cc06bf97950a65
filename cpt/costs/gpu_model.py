"""Seconds of a training step and of test images on a GPU: a model of what they launch, compute and move.

Nothing here was timed on a GPU; ``cpt plan --measure`` times. A linear layer takes as long as its tiles need, in waves
over the multiprocessors; an element-wise kernel as long as its bytes; no kernel takes less than ``FLOOR``. The host
launches every operator, or a whole graph at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cpt.clip.packing import GROUP
from cpt.costs.step_costs import NAME


class Card(NamedTuple):
    """A GPU: its name, multiprocessors, peak FLOP/s in 16 and in 32 bits, bytes/s of its memory, bytes of it."""

    title: str
    multiprocessors: int
    half: float
    single: float
    bandwidth: float
    memory: float


CARDS = {
    "h100": Card("NVIDIA H100 SXM", 132, 989e12, 67e12, 3.35e12, 80e9),
    "h200": Card("NVIDIA H200 SXM", 132, 989e12, 67e12, 4.8e12, 141e9),
    "a100": Card("NVIDIA A100 SXM", 108, 312e12, 19.5e12, 2.04e12, 80e9),
    "rtx4090": Card("NVIDIA RTX 4090", 128, 165e12, 82.6e12, 1.01e12, 24e9),
}
"""From NVIDIA's data sheets; 16 bits: dense, with sums in float32."""

REACHED = 0.75
"""Share of both peaks that large kernels reach. Assumed."""
FLOOR = 2.2e-6
"""Seconds of the shortest kernel in a chain inside a graph. Assumed."""
BEGIN, BEGIN_TILES = 1.5e-6, 2.5e-6
"""Seconds before an element-wise kernel, and one of tiles, is at full speed. Assumed."""
HOST = 6e-6
"""Seconds in which the host launches an operator. Assumed; 5 to 8 are usual with autograd."""
TILES = ((256, 128, 1.0), (128, 128, 0.9), (128, 64, 0.7), (64, 64, 0.5))
"""Rows and columns of a tile of a matrix product, and the share of ``REACHED`` that it can reach. Assumed."""
DEPTH = 192
"""Summands of a tile below which a library does not divide a sum between multiprocessors. Assumed."""
ATTENTION, BACKWARD = 0.45, 2.5
"""Share of ``REACHED`` that one of a multiprocessor's two blocks of fused attention reaches: assumed. FLOPs backward
to forward: five matrix products to two."""
BATCH_OPERATORS = 10
"""Operators of a step outside its graph, which copy and normalize: 8 with one view of the images, 14 with two; read off
cpt.training.batches."""

PREFIX = 5
"""Positions that all prompts share: start token and four context vectors. Assumed."""
OWN = NAME + 2
"""Positions of a class of its own: its name, the full stop and the end token."""
PER_CLASS = ("dekg_tcp", "lamp_abstract", "tcp")
"""Methods whose prompts differ by class, so that every class has its own prefix."""
OPERATORS = {
    "candle": 349, "clap": 182, "clip_adapter": 183, "clip_lora": 1299, "cocoop": 550, "coop": 522, "coprompt": 1042,
    "cpt": 796, "cross_modal": 175, "dekg": 567, "dekg_tcp": 586, "dpc": 757, "ivlp": 744, "kgcoop": 534, "lamp": 982,
    "lamp_abstract": 924, "lift": 695, "maple": 811, "mma": 1089, "mmrl": 868, "npt": 845, "promptsrc": 911,
    "shuffled_labels": 169, "taskres": 172, "tcp": 553, "tip_adapter_f": 167, "zs_lp": 169,
}  # fmt: skip
"""Operators of a step of 12 blocks in 16 bits, counted by ``python -m benchmarks.operators``."""
OTHER_OPERATORS = 150
"""Operators outside the towers' blocks of a method that is not in the table. Assumed."""
SAVED = 11
"""Values of the width that a block keeps of a row for its backward pass; counted on a CPU: 9 to 11."""
USED = 10
"""Values of the width that a block holds of a row where nothing is kept: its input and both sides of the MLP."""
VOCABULARY = 49408
CONTEXT = 5e8
"""Bytes of GPU memory of a process beside its tensors. Assumed."""


class Kernels(NamedTuple):
    """Element-wise kernels of a block, and values that they move, in widths of a row (or position)."""

    number: int
    values: int


FORWARD, GRADIENT = Kernels(6, 20), Kernels(8, 32)
"""Of norms, sums, activation and prompts; read off cpt.clip.blocks: a norm moves 2 values (3 for its gradient), a sum
3, an activation 8 (12), the gradients of queries, keys and values 6."""
GATHER, GATHER_GRADIENT = Kernels(2, 8), Kernels(5, 16)
"""Of the copies into groups and back, by position; read off cpt.clip.packing."""


class Pass(NamedTuple):
    """Tokens on their way through a tower.

    Attributes:
        rows: tokens that the linear layers work on; in the last block, ``ends`` of them behind the attention.
        problems, positions: number of attention problems, and their length.
        width, layers: of the tower.
        grouped: rows are copied into the problems and back.
        backward: gradients pass too.
    """

    rows: int
    ends: int
    problems: int
    positions: int
    width: int
    layers: int
    grouped: bool
    backward: bool

    @property
    def kernels(self) -> int:
        """Kernels of all blocks."""
        gathers = (GATHER.number, GATHER_GRADIENT.number) if self.grouped else (0, 0)
        forward, gradient = (5 + own.number + more for own, more in zip((FORWARD, GRADIENT), gathers, strict=True))
        return self.layers * (forward + self.backward * gradient)


def texts(
    count: int, contexts: int, width: int, layers: int, *, per_class: bool = False, backward: bool = True
) -> Pass:
    """The prompts of ``count`` classes, under each of so many contexts."""
    shared = 0 if per_class else PREFIX
    own = OWN + PREFIX - shared
    room = (GROUP - shared) // own
    groups, positions = math.ceil(count / room), -(-(shared + own * min(room, count)) // 8) * 8
    rows = contexts * (shared + own * count)
    return Pass(rows, contexts * count, contexts * groups, positions, width, layers, True, backward)


def images(count: int, positions: int, width: int, layers: int, *, backward: bool = True) -> Pass:
    """So many images of so many positions."""
    return Pass(count * positions, count, count, positions, width, layers, False, backward)


@dataclass(frozen=True)
class Gpu:
    """A card and the bytes of a value of the towers, 2 or 4."""

    card: Card
    value: int = 2

    @property
    def _speed(self) -> float:
        """FLOP/s of a multiprocessor."""
        return REACHED * (self.card.half if self.value == 2 else self.card.single) / self.card.multiprocessors

    def moved(self, values: float, kernels: int = 1) -> float:
        """Seconds of element-wise kernels that move so many values between them."""
        if not kernels:
            return 0.0
        each = values * self.value / kernels / (REACHED * self.card.bandwidth)
        return kernels * max(FLOOR, BEGIN + each)

    def linear(self, rows: int, inputs: int, outputs: int) -> float:
        """Seconds of a matrix product (rows, inputs) @ (inputs, outputs), by the best of some tilings."""
        found = []
        for height, width, reached in TILES:
            tiles = math.ceil(rows / height) * math.ceil(outputs / width)
            for parts in (1, 2, 4):
                if parts == 1 or inputs / parts >= DEPTH:
                    waves = math.ceil(tiles * parts / self.card.multiprocessors)
                    tile = 2 * height * width * inputs / parts / (reached * self._speed)
                    found.append(waves * tile + (BEGIN if parts > 1 else 0))
        moved = self.value * (rows * inputs + inputs * outputs + rows * outputs)
        return BEGIN_TILES + max(min(found), moved / (REACHED * self.card.bandwidth))

    def attention(self, tokens: Pass, *, backward: bool = False) -> float:
        """Seconds of a block's fused attention: tiles of 128 queries that go over tiles of 128 keys."""
        across, heads = math.ceil(tokens.positions / GROUP), tokens.width // 64
        tile = across * 4 * GROUP * GROUP * 64 / (ATTENTION * self._speed)
        tiles = tokens.problems * heads * across
        seconds = tile * max(1.0, tiles / (2 * self.card.multiprocessors))
        if not backward:
            return BEGIN_TILES + seconds
        values = 3 * tokens.problems * tokens.positions * tokens.width
        return BEGIN_TILES + BACKWARD * seconds + self.moved(2 * values, 2)

    def tower(self, tokens: Pass) -> float:
        """Seconds of a pass through all blocks."""
        rows, ends, width = tokens.rows, tokens.ends, tokens.width
        places = tokens.problems * tokens.positions * width
        seconds = 0.0
        for gradient in (False, True) if tokens.backward else (False,):
            own, gathers = (GRADIENT, GATHER_GRADIENT) if gradient else (FORWARD, GATHER)
            sizes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
            first, *rest = (tuple(reversed(size)) for size in sizes) if gradient else sizes
            seconds += tokens.layers * (self.linear(rows, *first) + self.attention(tokens, backward=gradient))
            for size in rest:
                seconds += (tokens.layers - 1) * self.linear(rows, *size) + self.linear(ends, *size)
            seconds += tokens.layers * self.moved(own.values * rows * width, own.number)
            if tokens.grouped:
                seconds += tokens.layers * self.moved(gathers.values * places, gathers.number)
        return seconds

    def step(self, operators: int, passes: Sequence[Pass], *, graphs: bool, drawn: Sequence[Pass] = ()) -> float:
        """Seconds of a step.

        Args:
            operators: all of them.
            passes: through the towers; the kernels of their blocks are among the operators.
            graphs: the step is replayed as a CUDA graph.
            drawn: passes of every step before it, on whose results the host waits.
        """
        others = max(operators - sum(tokens.kernels for tokens in passes), 0)
        device = sum(map(self.tower, passes)) + (others + BATCH_OPERATORS) * FLOOR
        host = HOST * (BATCH_OPERATORS + (0 if graphs else operators))
        return max(device, host) + sum(map(self.eager, drawn))

    def eager(self, tokens: Pass) -> float:
        """Seconds of a pass whose operators the host launches one by one."""
        return max(self.tower(tokens), HOST * tokens.kernels)

    def memory(self, widths: Sequence[tuple[int, int]], step: Sequence[Pass], test: Sequence[Pass]) -> float:
        """Bytes of tensors: the weights, and the larger of what a step keeps and a test holds.

        Args:
            widths: (width, layers) of text and vision tower.
            step, test: passes of a step and of a batch of test images.
        """
        weights = VOCABULARY * widths[0][0] + sum(12 * layers * width**2 for width, layers in widths)
        kept = sum(SAVED * p.layers * p.rows * p.width for p in step if p.backward)
        return self.value * (weights + max([kept, *(USED * p.rows * p.width for p in test)]))


def operators(method: str, passes: Sequence[Pass]) -> int:
    """Operators of a step of a method.

    Args:
        passes: through both towers, also those that cached features save.
    """
    blocks = sum(tokens.kernels for tokens in passes)
    if method not in OPERATORS:
        return blocks + OTHER_OPERATORS
    per_layer = [tokens._replace(layers=12) for tokens in passes]
    return blocks + max(OPERATORS[method] - sum(tokens.kernels for tokens in per_layer), 0)
