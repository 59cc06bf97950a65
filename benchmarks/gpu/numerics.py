"""Part ``numerics``: losses and gradients on the device against the CPU in float32.

Weights, images and every choice are the same. A hard negative or an entry of a pool that the device chose by itself
would differ at a near tie, and with it the whole gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.check import Check
from cpt.methods.base.layers import Balanced
from cpt.methods.base.method import Batch, Method
from cpt.training.graphs import INPUTS

CLASSES = 24
LIMIT = 1e-3
"""Largest relative difference of a loss or gradient in float32."""


@dataclass(frozen=True)
class Computed:
    """What a method computed for a batch.

    Attributes:
        loss: weighted sum of its components.
        gradient: of all learned tensors, one after another, on the CPU.
        batch: with what ``Method.draw`` chose.
        chosen: entries that the pools of both forms of LAMP chose, in order.
    """

    loss: float
    gradient: Tensor
    batch: Batch
    chosen: list[Tensor]


def numerics(check: Check) -> None:
    """Compare every method in three precisions."""
    for name in check.methods():
        with check.tried("numerics", name):
            wanted = computed(check, name, torch.device("cpu"), torch.float32)
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                with check.tried("numerics", name, dtype=str(dtype)):
                    found = computed(check, name, check.device, dtype, wanted)
                    _compare(check, name, dtype, found, wanted)


def _compare(check: Check, name: str, dtype: torch.dtype, found: Computed, wanted: Computed) -> None:
    loss = abs(found.loss / wanted.loss - 1)
    gradient = float((found.gradient - wanted.gradient).norm() / wanted.gradient.norm())
    bad = dtype == torch.float32 and not max(loss, gradient) <= LIMIT
    fault = {"error": f"differs from the CPU by more than {LIMIT:g}"} if bad else {}
    check.row("numerics", name, dtype=str(dtype), loss=loss, gradient=gradient, **fault)


def computed(
    check: Check, name: str, device: torch.device, dtype: torch.dtype, like: Computed | None = None
) -> Computed:
    """Loss and gradient of a method's first step.

    Args:
        like: computed elsewhere from the same batch, whose choices are taken over.
    """
    steps = check.steps(name, check.clip(dtype, device, small=True), CLASSES)
    method = steps.loop.method
    if like is None:
        batch = steps.draw(steps.batch(0))
    else:
        tensors = {key: value for key in INPUTS if isinstance(value := getattr(like.batch, key), Tensor)}
        batch = replace(like.batch, **{key: value.to(device) for key, value in tensors.items()})  # type: ignore[arg-type]
    chosen = follow(method, None if like is None else like.chosen)
    loss = method.total(method.step(batch, steps.loop.training_set).losses)
    loss.backward()
    gradients = [p.grad.flatten().float().cpu() for p in method.parameters() if p.grad is not None]
    return Computed(float(loss.detach()), torch.cat(gradients), batch, chosen)


def follow(method: Method, given: list[Tensor] | None) -> list[Tensor]:
    """Have the pools of a method choose the given entries, in order; None: whatever they choose.

    Returns:
        A list that gets what they choose.
    """
    left, made = list(given or []), list[Tensor]()

    def choose(scores: Tensor, *top: int, own: partial[Tensor]) -> Tensor:
        found = own(scores, *top) if given is None else left.pop(0).to(scores.device)
        made.append(found.cpu())
        return found

    for pool in method.modules():
        if isinstance(pool, Balanced):
            pool.choose = partial(choose, own=pool.choose)  # type: ignore[method-assign,assignment,arg-type]
    return made
