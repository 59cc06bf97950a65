"""What a training step launches on a GPU, shown on a CPU: how many operators, and that none waits for the device."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import operators
from benchmarks.operators import KEPT, SORTS, WAITS, by_mask, counted
from cpt.clip.blocks import Block
from cpt.methods.base import registry
from cpt.methods.base.method import Batch, Method
from cpt.methods.coop import CoOp
from cpt.metrics import widest
from cpt.training.checkpoint import CheckpointFile
from cpt.training.graphs import INPUTS
from cpt.training.loop import Loop
from tests.helpers.contract import Batches, Toy

pytestmark = pytest.mark.no_cover  # other tests cover these lines, and tracing them takes longest here

BUDGET = json.loads(KEPT.read_text())["bfloat16"]
"""Operators of one step as counted when they were last kept (``python -m benchmarks.operators``). More than 3 % above
is a change for the worse on every GPU: a kernel or more for each."""
SLACK = 1.03  # versions of torch differ by up to 2.3 %
TRAINED = [name for name in registry.names() if registry.get(name).trains]


def trace(toy: Toy) -> None:
    """Trace a step with tensors that have no values.

    Raises:
        Exception: a value decides what the step does, or it waits for a GPU in a way that a trace does not show.
    """
    loop = Loop(toy.method, toy.training, Batches(toy, None), CheckpointFile(None, "", 0), lambda _: None)  # type: ignore[arg-type]
    for step in range(2):  # these make momenta and constants
        loop.step(toy.batch(step, 4))
    batch = toy.method.draw(toy.batch(2, 4), loop.training_set)

    def step(inputs: dict[str, Tensor]) -> Tensor:
        loop._step(replace(batch, **inputs))  # type: ignore[arg-type]
        return loop.sums.total

    inputs = {name: value for name in INPUTS if isinstance(value := getattr(batch, name), Tensor)}
    traced = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(inputs)
    for node in traced.graph.nodes:
        name = str(node.target).removeprefix("aten.").split(".")[0]
        values = map_arg(node.args, lambda argument: argument.meta.get("val"))
        assert name not in WAITS, name
        assert not by_mask(name, values), f"{name}: nonzero"


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_stays_within_its_budget_of_operators(name: str) -> None:
    found = counted(name)
    assert found.total <= SLACK * BUDGET[name], found.counts.most_common(20)
    assert not WAITS & found.counts.keys()
    if name != "lamp_abstract":  # the gradient of its gathered cosines, a few numbers
        assert not SORTS & found.counts.keys()


READS = ("tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__iter__")
"""Functions of a tensor that wait for a GPU, and iteration, which reads value by value."""


@pytest.mark.parametrize("name", TRAINED)
def test_what_the_host_decides_waits_once_at_most(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DPC reads the candidates of all images at once; labels are on the host already."""
    toy, read = Toy(name), []
    toy.method.draw(toy.batch(0), toy.training)  # constants of the training set
    batch = toy.batch(1)
    pictures = toy.at(range(len(toy.labels)))

    def take(positions: Sequence[int], _: Batch) -> Batch:
        return replace(pictures, images=pictures.images[: len(positions)])

    training_set = replace(toy.training, take=take)
    for function in READS:
        plain = getattr(Tensor, function)
        monkeypatch.setattr(Tensor, function, lambda *args, f=plain, **named: read.append(f) or f(*args, **named))
    drawn = toy.method.draw(batch, training_set)
    assert [function.__name__ for function in read] == (["tolist"] if name == "dpc" else [])
    assert drawn.host_labels == drawn.labels.tolist(), "of all its images"


def test_the_count_does_not_depend_on_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    few = counted("cpt").total
    monkeypatch.setattr(operators, "CLASSES", 60)
    assert counted("cpt").total == few


@pytest.mark.parametrize("name", TRAINED)
def test_no_value_decides_what_a_step_does(name: str) -> None:
    trace(Toy(name))


class Spoiled(CoOp):
    """CoOp with one line more in its loss."""

    def spoil(self, image: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError

    def losses(self, image, batch, training_set):
        found = super().losses(image, batch, training_set)
        return {"cross_entropy": found["cross_entropy"] + 0 * self.spoil(image, batch)}


def with_item(_: Method, image: Tensor, __: Batch) -> Tensor:
    return image.sum() * image.max().item()


def with_a_boolean_index(_: Method, image: Tensor, __: Batch) -> Tensor:
    return image[image > 0].sum()


def with_bincount(_: Method, image: Tensor, batch: Batch) -> Tensor:
    return image.sum() * torch.bincount(batch.labels, minlength=5).sum()


@pytest.mark.parametrize("line", [with_item, with_a_boolean_index, with_bincount])
def test_a_step_that_waits_is_found(line: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spoiled, "spoil", line)
    monkeypatch.setattr(registry, "get", lambda name: Spoiled)
    with pytest.raises(Exception, match=r"item|nonzero|bincount|data-dependent"):
        trace(Toy("coop"))
    assert WAITS & counted("coop").counts.keys()


def test_ten_more_operators_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Block.qkv
    monkeypatch.setattr(
        Block, "qkv", lambda block, x, adapter: plain(block, x, adapter) + 0
    )  # twelve blocks of each tower
    assert counted("coop").total > SLACK * BUDGET["coop"]


class Narrow(TorchDispatchMode):
    """A device without float64, such as Apple's GPUs: nothing there is made float64, or adds up in it.

    Numbers that the host computes from nothing, such as PromptSRC's weights of the epochs, may be.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        narrow = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dtype != torch.float64]
        for value in tree_leaves(found) if narrow else []:
            assert not isinstance(value, Tensor) or value.dtype != torch.float64, func
        return found


@pytest.mark.parametrize("name", TRAINED)
def test_nothing_needs_float64_where_a_device_has_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widest, "WITHOUT_FLOAT64", {"cpu"})
    toy = Toy(name, epochs=2)
    with Narrow():
        loop = Loop(toy.method, toy.training, Batches(toy, None), CheckpointFile(None, "", 0), lambda _: None)  # type: ignore[arg-type]
        loop.run()
    assert loop.sums.total.dtype == torch.float32
