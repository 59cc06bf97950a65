"""Parts that several methods share: linear layers, adapters, balanced choices, dropout, averages, hard negatives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear layer with torch's default initial values, drawn from ``generator``."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer of zeros."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def in_precision(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer on (..., inputs) in the precision of ``x``: in a frozen tower, that of its weights."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


class Bottleneck(nn.Module):
    """Two linear layers with biases, width -> hidden -> outputs, and an activation between them.

    Args:
        activation: ``relu`` or ``quick_gelu``.
    """

    def __init__(self, width: int, hidden: int, outputs: int, activation: str, generator: torch.Generator) -> None:
        super().__init__()
        self.first = linear(width, hidden, generator)
        self.second = linear(hidden, outputs, generator)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., outputs)."""
        hidden = self.first(x)
        return self.second(F.relu(hidden) if self.activation == "relu" else hidden * torch.sigmoid(1.702 * hidden))


class Projections(nn.Module):
    """A linear layer with bias for each of L blocks, dimension -> width; all begin as the same one."""

    def __init__(self, blocks: int, dimension: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        first = linear(dimension, width, generator)
        self.weight = nn.Parameter(first.weight.detach().expand(blocks, -1, -1).clone())
        self.bias = nn.Parameter(first.bias.detach().expand(blocks, -1).clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, dimension) for all blocks, or (L, n, dimension) -> (L, n, width)."""
        return torch.baddbmm(self.bias.unsqueeze(1), tokens.expand(len(self.weight), -1, -1), self.weight.mT)


class Balanced(nn.Module):
    """Entries that inputs choose, with a bias that is moved towards equal load from outside the loss.

    Source: Wang et al., arXiv 2408.15664 (loss-free balancing of mixtures of experts).

    Args:
        shape: of the bias: P entries, or those of each of L blocks, (L, P).

    Attributes:
        bias: what is added to the scores of the entries; saved with the learned tensors.
        load: how often each was chosen since the last step of the optimizer.
    """

    bias: Tensor
    load: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("bias", torch.zeros(shape))
        self.register_buffer("load", torch.zeros(shape), persistent=False)

    @torch.no_grad()
    def balance(self, step: float) -> None:
        """Raise the bias of entries with less than the mean load, lower the others', and start counting again."""
        self.bias += step * torch.sign(self.load.mean(dim=-1, keepdim=True) - self.load)
        self.load.zero_()


class Adapter(nn.Module):
    """Residual adapter of features, ``(1 - ratio) x + ratio relu(W2 relu(W1 x))``, without biases.

    Source: repo ShuvenduRoy/CoPrompt, trainers/coprompt.py.
    """

    def __init__(self, width: int, reduction: int, ratio: float, generator: torch.Generator) -> None:
        super().__init__()
        self.ratio = ratio
        hidden = max(1, width // reduction)
        self.first = linear(width, hidden, generator, bias=False)
        self.second = linear(hidden, width, generator, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Adapt raw features (N, width); the shape stays."""
        return self.ratio * F.relu(self.second(F.relu(self.first(x)))) + (1 - self.ratio) * x


MASKS = 4
"""Independent masks that one hash gives: its 64 bits hold four numbers of 16 bits."""
_STEP, _FIRST, _SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def dropout(x: Tensor, rate: float, key: Tensor, masks: int) -> Tensor:
    """Copies (masks, ...) of ``x`` (...) with values set to zero, each with a mask of its own; others are scaled up.

    The masks are a hash of the key and the position (splitmix64), computed where ``x`` is: no random stream, no value
    read, equal on every device and whatever the precision.

    Args:
        rate: share of the values that become zero, to the nearest 1/65536.
        key: (1,) int64, random; another one for every step and place.
        masks: number of copies, at most ``MASKS``.
    """
    with torch.no_grad():
        bits = torch.add(key, torch.arange(x.numel(), device=x.device), alpha=_STEP)
        bits = (bits ^ (bits >> 30)) * _FIRST
        bits = (bits ^ (bits >> 27)) * _SECOND
        bits = bits ^ ((bits >> 31) & (2**33 - 1))  # a shift repeats the sign, which would undo it in the number on top
        numbers = bits.view(torch.int16).view(*x.shape, MASKS)[..., :masks]
        kept = numbers >= round(rate * 2**16) - 2**15
        factor = kept.movedim(-1, 0).to(x.dtype) * (1 / (1 - rate))
    return x * factor


def gaussian_weights(epochs: int, mean: float, std: float) -> Tensor:
    """Weights (E,) of the epochs 1..E: normal density, sum 1 (repo muzairkhattak/PromptSRC, trainers/promptsrc.py)."""
    epoch = torch.arange(1, epochs + 1, dtype=torch.float64)
    return torch.softmax(-0.5 * ((epoch - mean) / std) ** 2, dim=0)


class WeightedAverage:
    """Running weighted sum of parameters over the epochs."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, parameters: Iterable[tuple[str, Tensor]], weight: float) -> None:
        """Add ``weight`` times every parameter."""
        for name, value in parameters:
            self.sums[name] = self.sums[name] + weight * value if name in self.sums else weight * value.detach()


def hard_negatives(scores: Tensor, labels: list[int], top: int, random: Random) -> Iterator[list[int]]:
    """Hard-negative classes of each image, without repeats within the batch.

    These are the ``top`` best-scored classes of an image, except its own and those already in the batch. If fewer than
    two remain, random ones are added. Random draws leave out class 0 and the last class, as in repo JREion/DPC,
    trainers/sple_coop.py. The classes of all images are read from the device at once.

    Args:
        scores: (B, K) similarities under a fixed model.
        labels: true labels of the B images.
        top: number of candidates per image.

    Yields:
        The negative classes of each image, in order; the published code draws their images before the next image's
        negatives.
    """
    classes = scores.shape[1]
    present = set(labels)
    for label, best in zip(labels, scores.topk(min(top, classes), dim=1).indices.tolist(), strict=True):
        negatives = [c for c in best if c != label and c not in present]
        present |= set(negatives)
        if len(negatives) < 2:
            for _ in range(classes - 2):
                drawn = random.randint(1, classes - 2)
                if len(negatives) >= 2:
                    break
                if drawn not in present:
                    negatives.append(drawn)
                    present.add(drawn)
        yield negatives
