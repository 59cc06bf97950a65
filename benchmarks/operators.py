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
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.loops import TRAINED, Steps
from cpt.methods.base.sizes import placeholder_classes, small_clip

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


def counted(name: str, dtype: torch.dtype = torch.bfloat16) -> Operators:
    """Count the operators of what the device does in a method's third step: the first makes momenta and constants."""
    clip = small_clip()
    clip = replace(clip, text=clip.text.to(dtype), vision=clip.vision.to(dtype))
    steps = Steps(name, clip, placeholder_classes(clip, CLASSES), BATCH)
    for step in range(2):
        steps.loop.step(steps.batch(step))
    drawn = steps.draw(steps.batch(2))
    with Operators() as operators:
        steps.loop._step(drawn)
    return operators


def main() -> None:
    """Count every method's operators and keep them."""
    kept = {str(dtype).removeprefix("torch."): {name: counted(name, dtype).total for name in TRAINED}
            for dtype in (torch.bfloat16, torch.float32)}  # fmt: skip
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    print(KEPT.read_text())


if __name__ == "__main__":
    main()
