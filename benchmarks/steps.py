"""One training step of either kind, taken apart by the clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.problem import Naive, Problem
from benchmarks.timing import now
from cpt.features.text import Classes
from cpt.methods.base.method import Batch, Method, TrainingSet
from cpt.training.batches import Batches
from cpt.training.checkpoint import CheckpointFile
from cpt.training.loop import Loop
from cpt.training.optimizers import Optimizer

PARTS = ("text forward", "text backward", "image forward", "image backward", "optimizer", "host")
"""The parts of a step; host is everything else: the batch, the loss, bookkeeping."""

Seconds = dict[str, float]


class OurStep:
    """Steps of ``cpt.training.loop.Loop`` as they are. Hooks note when the towers and the optimizer begin and end.

    Args:
        problem: the model.
        method: what is trained.
        classes: the K classes.
        batches: the images; one epoch of them is enough.
        parts: take the step apart; on a GPU the clock would have to stop it.
    """

    def __init__(
        self, problem: Problem, method: Method, classes: Classes, batches: Batches, *, parts: bool = True
    ) -> None:
        counts = torch.ones(len(classes), device=problem.clip.device)
        self.loop = Loop(method, TrainingSet(classes, counts), batches, CheckpointFile(None, "", 0), lambda _: None)
        self.method, self.optimizer = method, self.loop.optimizer
        self.device, self.batches = problem.clip.device, iter(batches.epoch(0))
        self.at: dict[str, float] = {}
        if parts:
            for name, tower in (("text", problem.clip.text), ("image", problem.clip.vision)):
                tower.register_forward_pre_hook(self._mark(f"{name} begins"))
                tower.register_forward_hook(self._mark(f"{name} ends"))
                tower.register_forward_hook(self._watch_backward(name))
            for parameter in method.parameters():
                parameter.register_post_accumulate_grad_hook(self._mark("backward ends"))
            step, begins, ends = self.optimizer.step, self._mark("optimizer begins"), self._mark("optimizer ends")
            self.optimizer.step = lambda: (begins(), step(), ends())  # type: ignore[method-assign]

    def __call__(self) -> tuple[Seconds, float]:
        """Make a step; return its seconds by part, ``whole`` among them, and the loss."""
        self.at.clear()
        began = now(self.device)
        batch = next(self.batches)
        self.loop.sums.clear()
        self.loop.step(batch)
        whole = now(self.device) - began
        loss = self.loop.sums.values()["loss"]
        return (self._parts(whole) if self.at else {"whole": whole}), loss

    def _mark(self, name: str) -> Callable[..., None]:
        def mark(*_: Any) -> None:
            self.at[name] = now()

        return mark

    def _watch_backward(self, name: str) -> Callable[..., None]:
        def watch(_module: Any, _inputs: Any, features: Tensor) -> None:
            if features.requires_grad:
                features.register_hook(self._mark(f"{name} backward begins"))

        return watch

    def _parts(self, whole: float) -> Seconds:
        at = self.at
        found = {f"{name} forward": at[f"{name} ends"] - at[f"{name} begins"] for name in ("text", "image")}
        begins = sorted((at[f"{name} backward begins"], name) for name in ("text", "image"))
        (first, earlier), (second, later) = begins  # one tower after the other, as autograd works off the graph
        found |= {f"{earlier} backward": second - first, f"{later} backward": at["backward ends"] - second}
        found["optimizer"] = at["optimizer ends"] - at["optimizer begins"]
        return found | {"host": whole - sum(found.values()), "whole": whole}


class NaiveStep:
    """Steps of the naive computation, with the same optimizer.

    Where memory does not hold the graphs of all classes, the text tower runs over chunks of classes: the gradient of
    the loss with respect to all text features comes from a pass before the clock starts, then every chunk goes forward
    and backward once. Operations and numbers are those of the whole.

    Args:
        problem: the model.
        method: ours, at its first step.
        classes: the K classes.
        batches: the images.
        chunk: classes whose graph is in memory at once.
        parts: take the step apart.
    """

    def __init__(
        self, problem: Problem, method: Method, classes: Classes, batches: Batches, chunk: int, *, parts: bool = True
    ) -> None:
        self.naive = Naive(problem, method, classes)
        self.optimizer = Optimizer(self.naive.parameters(), method.hp)
        self.chunks = self.naive.tokens.split(chunk)
        self.batches = iter(batches.epoch(0))
        self.clock = _Clock(self.naive.device if parts else None)

    def __call__(self) -> tuple[Seconds, float]:
        """Make a step; return its seconds by part, ``whole`` among them, and the loss."""
        naive, clock, device = self.naive, self.clock, self.naive.device
        clock.seconds.clear()
        texts = self._texts_without_graph() if len(self.chunks) > 1 else None
        began = now(device)
        batch: Batch = next(self.batches)
        assert batch.images is not None
        with clock("image forward"):
            images = naive.images(batch.images)
        if texts is None:
            with clock("text forward"):
                texts = naive.text(self.chunks[0])
        ends = [x.detach().requires_grad_() for x in (images, texts)]
        loss = naive.loss(*ends, batch.labels)
        self.optimizer.zero_grad()
        loss.backward()
        gradients = ends[1].grad.split(len(self.chunks[0]))  # type: ignore[union-attr]
        for tokens, gradient in zip(self.chunks, gradients, strict=True):
            if len(self.chunks) > 1:
                with clock("text forward"):
                    texts = naive.text(tokens)
            with clock("text backward"):
                texts.backward(gradient)
        with clock("image backward"):
            images.backward(ends[0].grad)
        with clock("optimizer"):
            self.optimizer.step()
        whole = now(device) - began
        parts = {**clock.seconds, "host": whole - sum(clock.seconds.values())} if clock.seconds else {}
        return parts | {"whole": whole}, float(loss.detach())

    @torch.no_grad()
    def _texts_without_graph(self) -> Tensor:
        return torch.cat([self.naive.text(tokens) for tokens in self.chunks])


class _Clock:
    """Adds up seconds by name; without a device it does nothing."""

    def __init__(self, device: torch.device | None) -> None:
        self.device, self.seconds = device, defaultdict[str, float](float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self.device is None:
            yield
            return
        began = now(self.device)
        yield
        self.seconds[name] += now(self.device) - began


def difference(ours: OurStep, naive: NaiveStep) -> float:
    """Largest relative difference of the gradients that both steps left, by parameter."""
    learned = dict(ours.method.named_parameters())
    errors = []
    for name, parameter in naive.naive.values.items():
        mine, theirs = learned[name].grad, parameter.grad
        if mine is None or theirs is None:
            raise AssertionError(f"{name} got no gradient")
        errors.append(float((mine - theirs).norm() / theirs.norm()))
    return max(errors)


def close(a: float, b: float, tolerance: float) -> bool:
    """Whether two numbers agree relative to the second."""
    return abs(a - b) <= tolerance * abs(b)
