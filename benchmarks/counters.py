"""Operations and memory traffic of a computation, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_TABLES = {"embedding", "index", "index_select", "gather"}
"""Operations that read of their first input only what they return."""

aten = torch.ops.aten
_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda *sizes, **_: sdpa_flop_count(*sizes[:3]),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *sizes, **_: sdpa_backward_flop_count(*sizes[:4]),
}
"""How attention on a CPU is counted, which older versions of torch, 2.8 among them, leave out."""


class Cost(NamedTuple):
    """Floating-point operations and bytes moved."""

    flops: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, factor: float) -> Cost:
        """Return the cost of so many repetitions."""
        return Cost(self.flops * factor, self.bytes * factor)


class ByteCounter(TorchDispatchMode):
    """Sums the bytes of the inputs and outputs of every operation that is no mere view.

    An upper bound of the traffic to memory: what an operation finds in the processor's cache counts as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and add its bytes."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not func.is_view and func._schema.name != "aten::detach":
            written = sum(map(_bytes, _tensors(output)))
            read = list(map(_bytes, _tensors((args, kwargs))))
            if func._schema.name.removeprefix("aten::") in _TABLES:
                read[0] = min(read[0], written)
            self.bytes += written + sum(read)
        return output


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """Bytes of a tensor; of an expanded one those that it really has."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def cost(work: Callable[[], Any]) -> Cost:
    """Count one call: matrix products, convolutions and attention exactly; element-wise operations as no FLOPs."""
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as flops, ByteCounter() as moved:
        work()
    return Cost(float(flops.get_total_flops()), float(moved.bytes))


def forward_and_backward(work: Callable[[], Tensor]) -> tuple[Cost, Cost]:
    """Count the forward pass of a computation with one tensor as its result, and the backward pass from it."""
    kept: list[Tensor] = []
    forward = cost(lambda: kept.append(work()))
    output = kept.pop()
    gradient = torch.ones_like(output)
    return forward, cost(lambda: output.backward(gradient))
