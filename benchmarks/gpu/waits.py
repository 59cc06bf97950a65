"""Part ``waits``: the device's part of a step, with every synchronization an error; and waits of what comes before."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu.check import Check
from benchmarks.loops import TRAINED
from cpt.training.graphs import WARM_UP

ALLOWED = {"dpc": 1}
"""Waits of ``Method.draw``: DPC reads the classes that score best."""


def waits(check: Check) -> None:
    """Look for waits in every method's step, launched one by one and as a graph."""
    if not check.cuda:
        check.row("waits", "left out", why="a CPU waits for nothing")
        return
    clip = check.clip(small=True)
    for name in TRAINED:
        with check.tried("waits", name):
            steps = check.steps(name, clip, 24, graph=True)
            drawn = steps.draw(steps.batch(0))
            assert steps.loop.graphs is not None
            for _ in range(WARM_UP + 2):
                steps.loop.graphs(drawn)
            batch = steps.batch(1)
            check.wait()
            with synchronizations("error"):
                steps.loop._step(drawn)
                steps.loop.graphs(drawn)
            with synchronizations("warn"), warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                steps.draw(batch)
            count = sum("synchronizing" in str(warning.message) for warning in found)
            fault = {"error": "more waits before a step than needed"} if count > ALLOWED.get(name, 0) else {}
            check.row("waits", name, waits=0, before=count, graphs=steps.loop.cuda_graphs, **fault)


@contextmanager
def synchronizations(what: str) -> Iterator[None]:
    """Make them warnings or errors inside the block."""
    torch.cuda.set_sync_debug_mode(what)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
