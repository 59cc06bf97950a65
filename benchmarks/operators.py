"""Operators of a training step: what reaches a backend, one by one.

On a GPU every operator is at least one kernel that the host launches, and at a few images a step the launches are what
a step takes. Their number depends on neither the classes nor the machine, so a CPU can count them.
``python -m benchmarks.operators`` counts all methods' and keeps them in docs/results/operators.json.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cpt.methods.base import registry
from cpt.methods.base.method import Batch, TrainingSet
from cpt.methods.base.sizes import placeholder_classes, small_clip
from cpt.training.checkpoint import CheckpointFile
from cpt.training.loop import Loop

FREE = {
    *("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "resize_", "set_"),  # allocations
    *("detach", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias", "unbind", "is_same_size"),  # views
}
"""Operators without a kernel, beside those that PyTorch declares to be views."""

WAITS = {"_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique_consecutive", "_unique2", "is_pinned"}
"""Operators that wait for a GPU, because they return a value to the host or a shape that depends on values."""

SORTS = {"index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put", "index_add", "index_add_", "index_copy",
         "index_copy_", "embedding_dense_backward", "scatter_add", "scatter_add_", "cumsum"}  # fmt: skip
"""Operators whose deterministic kernels on a GPU sort: eight launches and more."""


def by_mask(name: str, args: Sequence[Any]) -> bool:
    """Whether an operator indexes by a boolean tensor: on a GPU it then waits for ``nonzero``."""
    indices = args[1] if "index" in name and len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(getattr(index, "dtype", None) in (torch.bool, torch.uint8) for index in indices)


class Operators(TorchDispatchMode):
    """Counts operators while it is entered, below autograd: forward, backward and update.

    Attributes:
        counts: calls by the operator's name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a call and do it."""
        name = func._schema.name.split("::")[1]
        if not func.is_view and name not in FREE:
            self.counts[name] += 1
            if by_mask(name, args):
                self.counts["nonzero"] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """Number of calls."""
        return self.counts.total()


BATCH, CLASSES = 4, 24
KEPT = Path(__file__).resolve().parent.parent / "docs/results/operators.json"


def loop_of(name: str, dtype: torch.dtype = torch.bfloat16) -> tuple[Loop, Batch]:
    """A method's loop on the small CLIP of twelve blocks after two steps, which make momenta and constants; a batch."""
    clip = small_clip()
    clip = replace(clip, text=clip.text.to(dtype), vision=clip.vision.to(dtype))
    kind, classes, stream = registry.get(name), placeholder_classes(clip, CLASSES), torch.Generator().manual_seed(0)
    size = clip.image_size[0]

    def images(count: int) -> Tensor:
        return torch.randn(count, 3, size, size, generator=stream)

    def batch(step: int) -> Batch:
        labels = torch.randint(CLASSES, (BATCH,), generator=stream)
        second = images(BATCH) if kind.views == 2 else None
        return Batch(images(BATCH), None, labels, second, step=step, random=Random(step))

    labels = torch.arange(CLASSES).repeat(2)
    training_set = TrainingSet(
        classes,
        torch.full((CLASSES,), 2.0),
        clusters=torch.arange(CLASSES) // 4 if kind.needs_clusters else None,
        descriptions=torch.randn(3, CLASSES, clip.embed_dim, generator=stream) if kind.needs_descriptions else None,
        labels=labels,
    )
    method = kind(clip, kind.hyperparameters(), classes, stream)
    batches = SimpleNamespace(take=lambda positions, _: Batch(images(len(positions)), None, labels[list(positions)]))
    loop = Loop(method, training_set, batches, CheckpointFile(None, "", 0), lambda _: None)  # type: ignore[arg-type]
    for step in range(2):
        loop.step(batch(step))
    return loop, batch(2)


def counted(name: str, dtype: torch.dtype = torch.bfloat16) -> Operators:
    """Count the operators of what the device does in a method's step."""
    loop, batch = loop_of(name, dtype)
    drawn = loop.method.draw(batch, loop.training_set)
    with Operators() as operators:
        loop._step(drawn)
    return operators


def main() -> None:
    """Count every method's operators and keep them."""
    methods = [name for name in registry.names() if registry.get(name).trains]
    kept = {str(dtype).removeprefix("torch."): {name: counted(name, dtype).total for name in methods}
            for dtype in (torch.bfloat16, torch.float32)}  # fmt: skip
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    print(KEPT.read_text())


if __name__ == "__main__":
    main()
