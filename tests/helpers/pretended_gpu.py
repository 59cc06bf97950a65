"""A GPU that is only pretended: its tensors are the CPU's, but none of them may meet a tensor of the CPU.

So a CPU shows that a computation makes everything where it is used, and that it gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
MOVES = {"copy_", "_to_copy"}
INDICES = {"index", "index_put", "index_put_"}
"""A GPU's tensor may be indexed by integers of the CPU."""


class Places:
    """A set of memory. A weak reference to each keeps its address from being used again."""

    def __init__(self) -> None:
        self.known: dict[int, StorageWeakRef] = {}

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self.known

    def add(self, *values: Any) -> None:
        """Add the memory of all tensors in the values."""
        for tensor in tensors_of(values):
            storage = tensor.untyped_storage()
            self.known[storage._cdata] = StorageWeakRef(storage)


def tensors_of(values: Any) -> list[Tensor]:
    """Tensors in nested lists, tuples and dictionaries."""
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class Watch(TorchDispatchMode):
    """Refuses operators on tensors of both places.

    Attributes:
        gpu: memory of the GPU.
        neutral: memory of zeros that autograd makes where it is told, which is the CPU here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gpu, self.neutral = Places(), Places()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name.split("::")[1]
        given = tensors_of((args, kwargs))
        there = [tensor in self.gpu for tensor in given]
        device = kwargs.pop("device", None)
        asked = None if device is None else torch.device(device).type
        if any(there) and name not in MOVES:
            for tensor, is_there in zip(given, there, strict=True):
                by_index = name in INDICES and tensor.dtype == torch.long
                if not is_there and tensor.dim() and not by_index and tensor not in self.neutral:
                    raise RuntimeError(f"{name}: a tensor of shape {tuple(tensor.shape)} is on the CPU")
        found = func(*args, **kwargs)
        made_by_autograd = asked is not None and torch._C._current_graph_task_id() != -1
        if made_by_autograd or (given and all(tensor in self.neutral for tensor in given)):
            self.neutral.add(found)
        elif (asked or ("cuda" if (there[0] if name == "copy_" else any(there)) else "cpu")) == "cuda":
            self.gpu.add(found)
        return found

    def moved(self, tensor: Tensor, gpu: bool) -> Tensor:
        """A copy in the other place."""
        with _disable_current_modes():
            copy = tensor.detach().clone()
        if gpu:
            self.gpu.add(copy)
        return copy


class Move(torch.autograd.Function):
    """A copy to the other place, and of its gradient back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, watch: Watch, gpu: bool) -> Tensor:
        ctx.watch, ctx.gpu = watch, gpu
        return watch.moved(tensor, gpu)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.watch.moved(gradient, not ctx.gpu), None, None


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """``cuda`` is a device inside the block."""
    watch = Watch()
    plain_to, plain_numpy, plain_tensor = Tensor.to, Tensor.numpy, torch.tensor
    plain_device: Any = torch._C.TensorBase.device  # type: ignore[attr-defined]

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        wanted = [kwargs.get("device"), kwargs.get("dtype"), *args[:2]]
        if args and isinstance(args[0], Tensor):
            wanted = [args[0].device, args[0].dtype]
        device = next((torch.device(x) for x in wanted if isinstance(x, str | torch.device)), None)
        dtype = next((x for x in wanted if isinstance(x, torch.dtype)), None)
        found = self if dtype is None else plain_to(self, dtype)
        if device is None or (device.type == "cuda") == (self in watch.gpu):
            return found
        return Move.apply(found, watch, device.type == "cuda")  # type: ignore[no-untyped-call]

    def numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self in watch.gpu:
            raise TypeError("numpy cannot read the GPU")
        return plain_numpy(self, *args, **kwargs)

    def tensor(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        made = plain_tensor(*args, **kwargs)
        if device is not None and torch.device(device).type == "cuda":
            watch.gpu.add(made)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "device", property(lambda self: GPU if self in watch.gpu else plain_device.__get__(self)))
        patch.setattr(Tensor, "to", to)
        patch.setattr(Tensor, "cpu", lambda self: to(self, "cpu"))
        patch.setattr(Tensor, "pin_memory", lambda self: self)
        patch.setattr(Tensor, "numpy", numpy)
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        with watch:
            yield
