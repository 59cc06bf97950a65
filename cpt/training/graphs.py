"""A training step as a CUDA graph: hundreds of short kernels that one call launches.

At a few images a step, a GPU computes an operator faster than the host launches the next one. A graph holds a step's
kernels with the addresses that they read and write. So what a step is given is copied to where the captured one reads
it, and what it changes (parameters, momenta, sums) stays where it is. Before a graph is used, it and the step it was
captured from do the same step from the same state. Where they differ, or where nothing can be captured, training goes
on without graphs.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cpt.errors import CptError
from cpt.methods.base.method import Batch

CUDA_GRAPHS = ("auto", "off")
"""Values of the setting: on a GPU where they can be captured, or nowhere."""
WARM_UP = 3
"""Steps before the first capture: they make momenta and the libraries' own buffers."""
MOST = 32
"""Graphs of a training, whose inputs and kernels take memory; DPC's published setting has 25 shapes of batch."""
TOLERANCE = 1e-3
"""Largest difference of a replayed step from the step itself, tensor by tensor, relative to what the step changes."""
ROUNDING = 4.0
"""Further difference that is allowed, in units of the last place of the tensor's norm."""
INPUTS = ("images", "features", "labels", "second", "drawn")
"""Tensors of a batch."""

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a step and returns what repeats it."""


class CudaRecorder:
    """Records what a step launches, without doing it. The graphs share memory: no two run at once."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return what replays the step."""
        gc.collect()  # what a cycle keeps of an eager step's backward pass belongs to another stream
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            step()
        torch.cuda.empty_cache()  # of the eager steps: the graph has memory of its own
        return graph.replay


def recorder(device: torch.device, cuda_graphs: str) -> CudaRecorder | None:
    """Return what captures the steps of a training under the setting ``cuda_graphs``; None: nothing does."""
    return CudaRecorder() if device.type == "cuda" and cuda_graphs == "auto" else None


@dataclass(frozen=True)
class Captured:
    """A graph.

    Attributes:
        inputs: the tensors that it reads of a batch.
        replay: does the step.
        counts: what the step encodes (``cpt.clip.passes``), which a replay cannot count.
    """

    inputs: dict[str, Tensor]
    replay: Callable[[], None]
    counts: Counter[str]


class GraphedSteps:
    """A few eager steps, then a graph for every shape of batch that comes again, up to ``MOST``; others stay eager.

    Steps in which class weights act have graphs of their own.

    A graph reads tensors that the step did not make, such as packed prompts and constants of the losses, where they
    were when it was captured. So they have to live as long as what they were made from (classes, clusters, counts),
    which a training keeps.

    Args:
        step: does one step on a batch, without reading a value of the device.
        state: returns everything that a step changes, always the same tensors.
        counts: of ``cpt.clip.passes``.
        log: gets a line when steps cannot be captured.
        record: ``CudaRecorder()``, or a stand-in for it.

    Attributes:
        graphs: by the shapes of the batch; none once there is a problem.
        problem: why no graph is used, None while they are.
    """

    def __init__(
        self,
        step: Callable[[Batch], None],
        state: Callable[[], list[Tensor]],
        counts: Counter[str],
        log: Callable[[str], None],
        record: Record,
    ) -> None:
        self.step, self.state, self.counts, self.log, self.record = step, state, counts, log, record
        self.warm_up, self.previous = WARM_UP, None  # type: int, Batch | None
        self.seen: set[tuple] = set()
        self.graphs: dict[tuple, Captured] = {}
        self.problem: str | None = None

    def __call__(self, batch: Batch) -> None:
        """Do one step.

        Raises:
            CptError: a step that was tried cannot be undone.
        """
        inputs = {name: value for name in INPUTS if isinstance(value := getattr(batch, name), Tensor)}
        shapes = batch.reweighted, *((name, value.shape) for name, value in inputs.items())
        if self.warm_up:
            self.warm_up, self.previous = self.warm_up - 1, batch
        elif shapes in self.seen and self.problem is None and shapes not in self.graphs and len(self.graphs) < MOST:
            self._capture(shapes, batch, inputs)
        self.seen.add(shapes)
        graph = self.graphs.get(shapes)
        if graph is None:
            self.step(batch)
            return
        for name, static in graph.inputs.items():
            static.copy_(inputs[name], non_blocking=True)
        graph.replay()
        self.counts.update(graph.counts)

    def _capture(self, shapes: tuple, batch: Batch, inputs: dict[str, Tensor]) -> None:
        """Add a graph for the shapes, or give graphs up."""
        try:
            with self._put_back():
                self.graphs[shapes] = self._checked(batch, inputs)
        except RuntimeError as error:
            self.problem = _first_line(error)
            self.graphs.clear()
            self.log(f"training without CUDA graphs: {self.problem}")

    def _checked(self, batch: Batch, inputs: dict[str, Tensor]) -> Captured:
        """Capture a step on other values than the batch's, and compare it with the step on the batch.

        Raises:
            RuntimeError: it cannot be captured, or does something else.
        """
        assert self.previous is not None  # what a graph keeps of the host is of another batch, so that it shows
        before = [value.clone() for value in self.state()]
        self.counts.clear()
        self.step(batch)  # before the capture: constants of a new shape are made here and not inside the graph
        expected, counts = [value.clone() for value in self.state()], self.counts.copy()
        self._set(before)
        static = {name: torch.zeros_like(value) for name, value in inputs.items()}
        other = replace(self.previous, reweighted=batch.reweighted, **static)  # type: ignore[arg-type]
        replay = self.record(lambda: self.step(other))
        self._set(before)
        for name, value in inputs.items():
            static[name].copy_(value)
        replay()
        for old, wanted, found in zip(before, expected, self.state(), strict=True):
            change, error = _distance(wanted, old), _distance(found, wanted)
            rounding = ROUNDING * torch.finfo(torch.float32).eps * float(wanted.double().norm())
            if not error <= TOLERANCE * change + rounding:
                of = f"{error / max(change, 1e-30):.1e} of what it changes in a tensor of shape {tuple(wanted.shape)}"
                raise RuntimeError(f"a replayed step differs by {of}")
        return Captured(static, replay, counts)

    @contextmanager
    def _put_back(self) -> Iterator[None]:
        """Undo every step that the block does.

        Raises:
            CptError: that is impossible; names what the block failed with, if it did.
        """
        before, counted = [value.clone() for value in self.state()], self.counts.copy()
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
            raise
        finally:
            self.counts.clear()
            self.counts.update(counted)
            try:
                self._set(before)
            except RuntimeError as error:  # the training has done steps that it should not have
                raise CptError(
                    f"CUDA graphs: a step that was tried cannot be undone ({_first_line(failed or error)}); "
                    "set cuda_graphs: off"
                ) from (failed or error)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        state = self.state()
        if len(state) != len(values):
            raise RuntimeError("a step makes tensors that later steps change")
        for value, wanted in zip(state, values, strict=True):
            value.copy_(wanted)


def _first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).splitlines()), repr(error))


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm())
