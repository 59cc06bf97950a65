"""Part ``steps``: every method's step, eager and as a graph, and IVLP's as the reference codes compute it."""

from __future__ import annotations

import gc
from dataclasses import replace
from random import Random
from typing import Any

import torch

from benchmarks.gpu.check import PRECISION, Check
from benchmarks.problem import Problem, make_problem
from benchmarks.steps import NaiveStep
from cpt.clip.backbone import Clip

CLASSES = (24, 100, 500, 1000)
AT_EVERY_SIZE = ("ivlp", "cpt", "promptsrc", "dekg_tcp", "lamp")
"""Methods that are measured at every number of classes; the others at the smallest."""


def steps(check: Check) -> None:
    """Measure them."""
    problem = make_problem(
        quick=check.quick, device=str(check.device), dtype=PRECISION if check.cuda else torch.float32
    )
    clip = check.clip() if check.quick else problem.clip
    sizes = CLASSES[:1] if check.quick else CLASSES
    for count in sizes:
        problem.model.to("cpu")  # our steps' memory is without it
        for name in check.methods() if count == sizes[0] else AT_EVERY_SIZE:
            for how in ("eager", "graph") if check.cuda else ("eager",):
                with check.tried("steps", name, classes=count, how=how):
                    _one_step(check, clip, name, count, how)
        with check.tried("steps", "ivlp", classes=count, how="naive"):
            problem.model.to(check.device)
            _naive_step(check, problem, count)


def _one_step(check: Check, clip: Clip, name: str, count: int, how: str) -> None:
    _forget(check)
    made = check.steps(name, clip, count, graph=how == "graph")
    batch = made.batch(0)

    def step() -> None:
        made.loop.step(replace(batch, random=Random(0)))  # DPC draws in every step: here always the same

    values: dict[str, Any] = {"ms": 1e3 * check.seconds(step, 10, 8)}
    if check.cuda:
        values["memory_mb"] = torch.cuda.max_memory_reserved() / 2**20  # a graph's memory stays reserved
    if check.cuda and how == "eager":
        activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profile:
            step()
            check.wait()
        kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        values |= {"kernels": len(kernels), "device_ms": sum(e.time_range.elapsed_us() for e in kernels) / 1000}
    if how == "graph":
        values["graphs"] = made.loop.cuda_graphs
    check.row("steps", name, classes=count, how=how, **values)


def _naive_step(check: Check, problem: Problem, count: int) -> None:
    _forget(check)
    classes = problem.classes(count)
    made = NaiveStep(problem, problem.method(classes), classes, problem.batches(classes, 50, 4), count, parts=False)
    took = check.seconds(made, 10)
    memory = {"memory_mb": torch.cuda.max_memory_reserved() / 2**20} if check.cuda else {}
    check.row("steps", "ivlp", classes=count, how="naive", ms=1e3 * took, **memory)


def _forget(check: Check) -> None:
    gc.collect()
    if check.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
