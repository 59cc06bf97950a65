"""Steps as CUDA graphs, with a stand-in for the recorder: the logic around a graph, for which no GPU is needed."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cpt.errors import CptError
from cpt.methods.base import losses, registry
from cpt.methods.base.method import Batch
from cpt.training import graphs
from cpt.training.checkpoint import CheckpointFile
from cpt.training.graphs import WARM_UP, GraphedSteps, Record
from cpt.training.loop import Loop
from tests.helpers.contract import OTHERS, Batches, Toy, classes

TRAINED = [name for name in registry.names() if registry.get(name).trains]
EPOCHS = 8  # of two steps: 16, of which 13 are replayed


class StandIn:
    """Repeats the recorded step on the static tensors. Unlike a graph it also does the step while it is recorded."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0
        self.loop: Loop

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        step()

        def replay() -> None:
            self.replayed += 1
            counts = self.loop.passes.counts.copy()
            step()
            self.loop.passes.counts.clear()  # a graph runs no Python
            self.loop.passes.counts.update(counts)

        return replay


class Wrong(StandIn):
    """A graph that makes a sum one percent too large."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            step()
            self.loop.sums.total.mul_(1.01)

        return replay


class Idle(StandIn):
    """A graph that counts but does not learn."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            kept = [p.detach().clone() for p in self.loop.method.parameters()]
            step()
            with torch.no_grad():
                for parameter, value in zip(self.loop.method.parameters(), kept, strict=True):
                    parameter.copy_(value)

        return replay


class Broken(StandIn):
    """Nothing can be captured, and half of a step has been done before that shows."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nwith more lines")


Training = tuple[Toy, Loop, list[str]]
"""A method, the loop that has trained it, and the lines that it logged."""


def trained(name: str, record: StandIn | None, *, scaled: bool = False, **changes: Any) -> Training:
    toy, lines = Toy(name, **changes), []
    toy.method.hp = toy.hp.model_copy(update={"epochs": EPOCHS})
    toy.method.clip = replace(toy.method.clip, loss_scaling=scaled)
    batches = Batches(toy, None)
    loop = Loop(toy.method, toy.training, batches, CheckpointFile(None, "", 0), lines.append, record)  # type: ignore[arg-type]
    if record is not None:
        record.loop = loop
    loop.run()
    return toy, loop, lines


def same(one: Training, other: Training) -> bool:
    """Whether two trainings gave the same bits: learned tensors, the history but its seconds, what was encoded."""
    mine, others = (toy.method.state_dict() for toy, *_ in (one, other))
    rows = [[row | {"seconds": 0} for row in loop.history] for _, loop, _ in (one, other)]
    return (
        all(torch.equal(value, others[key]) for key, value in mine.items())
        and str(rows[0]) == str(rows[1])  # NaN where a measure is undefined
        and one[1].passes.counts == other[1].passes.counts
    )


class Memory(TorchDispatchMode):
    """Follows the memory of the tensors that operators read and make.

    Attributes:
        read: of tensors that were there before.
        made: of the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[int, StorageWeakRef] = {}
        self.made: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for values, ours in (((args, kwargs), self.read), (found, self.made)):
            for value in tree_leaves(values):
                if isinstance(value, Tensor):
                    memory = StorageWeakRef(value.untyped_storage())
                    if memory.cdata not in self.read and memory.cdata not in self.made:
                        ours[memory.cdata] = memory
        return found


class Alone(StandIn):
    """Refuses a step that keeps something while it is recorded: a graph would make it, without a value, for later."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        def followed() -> None:
            with Memory() as memory:
                step()
            for parameter in self.loop.method.parameters():
                parameter.grad = None
            assert not [place for place in memory.made.values() if not place.expired()]

        super().__call__(followed)
        return super().__call__(step)


@pytest.mark.parametrize("name", TRAINED)
def test_no_constant_is_made_inside_a_graph(name: str) -> None:
    for cache in (losses.positions, losses._zeros):
        cache.cache_clear()
    record = Alone()
    trained(name, record)
    assert record.replayed


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_graph_reads_stays_where_it_is(name: str) -> None:
    """Other classes, clusters and counts, as other targets and trainings have them, replace nothing."""
    toy, loop, _ = trained(name, StandIn())
    drawn = toy.method.draw(toy.batch(0, 3), loop.training_set)
    with Memory() as memory:
        loop._step(drawn)
    others = classes(OTHERS)
    with torch.no_grad():
        toy.method.text_features(others)
    for number in range(2, 20):
        losses.cluster_separation(others.frozen_unit, torch.arange(len(OTHERS)) // number)
        losses.prior_adjusted(torch.zeros(1, 2), torch.tensor([1.0, number]), "balanced_softmax")
    gc.collect()
    assert len(memory.read) > 100
    assert not [place for place in memory.read.values() if place.expired()]


def test_constants_go_with_what_they_are_made_from() -> None:
    clusters = torch.tensor([0, 0, 1])
    _, weight = losses._separation(clusters, "pairs", False)
    assert losses._separation(clusters, "pairs", False)[1] is weight
    assert losses._separation(clusters, "sum", False)[1] is not weight
    assert losses._separation(clusters.clone(), "pairs", False)[1] is not weight
    memory = StorageWeakRef(weight.untyped_storage())
    del weight
    assert not memory.expired()
    del clusters
    gc.collect()
    assert memory.expired()


@pytest.mark.parametrize("name", TRAINED)
def test_replayed_steps_give_the_same_bits(name: str) -> None:
    record = StandIn()
    graphed = trained(name, record)
    assert same(trained(name, None), graphed)
    loop = graphed[1]
    assert loop.graphs is not None
    assert loop.cuda_graphs == "captured"
    assert record.recorded == len(loop.graphs.graphs) >= 1
    if name == "dpc":  # whose batches have different numbers of negatives: each is first done eagerly
        assert record.replayed > record.recorded
    else:
        assert record.recorded == 1
        assert record.replayed == 2 * EPOCHS - WARM_UP + 1  # one to check


LONG_TAILED: tuple[dict[str, Any], ...] = (
    {"loss": "lade"},
    {"loss": "focal", "reweight": "generalized"},
    {"loss": "ldam", "reweight": "class_balanced", "reweight_after": 0.5},
)


@pytest.mark.parametrize("changes", LONG_TAILED)
def test_losses_for_long_tails_in_graphs(changes: dict[str, Any]) -> None:
    """No constant is made inside; steps with class weights have a graph of their own."""
    losses.positions.cache_clear()
    record = Alone()
    graphed = trained("coop", record, **changes)
    assert same(trained("coop", None, **changes), graphed)
    assert graphed[1].cuda_graphs == "captured"
    assert graphed[1].graphs is not None
    assert len(graphed[1].graphs.graphs) == (2 if "reweight_after" in changes else 1)
    assert record.replayed == 2 * EPOCHS - WARM_UP + 1  # one to check a graph; the first step with weights is none


class Counting:
    """Steps of batches of any size, which only count."""

    def __init__(self, **faults: Exception) -> None:
        self.total, self.made, self.recorded, self.replayed = torch.zeros(1), [], [], []
        self.lines: list[str] = []
        self.faults = faults
        self.steps = GraphedSteps(self.step, self.state, Counter(), self.lines.append, self.record)

    def step(self, batch: Batch) -> None:
        assert batch.images is not None
        self.total += batch.images.sum()

    def state(self) -> list[Tensor]:
        return [self.total, *self.made]

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        if "record" in self.faults:
            step()
            if "undo" in self.faults:
                self.made.append(torch.zeros(1))
            raise self.faults["record"]
        self.recorded.append(step)

        def replay() -> None:
            self.replayed.append(step)
            step()

        return replay

    def __call__(self, size: int) -> None:
        self.steps(Batch(torch.ones(size), None, torch.zeros(size)))


def test_a_shape_is_captured_when_it_comes_again() -> None:
    counting = Counting()
    for size in (1, 1, 1):  # to warm up
        counting(size)
    for size in (2, 3, 4):
        counting(size)
    assert not counting.recorded
    for size in (2, 1, 2):
        counting(size)
    assert len(counting.recorded) == len(counting.steps.graphs) == 2
    assert len(counting.replayed) == 3 + 2  # and one to check each
    assert counting.total == 3 + 9 + 5


def test_there_are_only_so_many_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    counting = Counting()
    for _ in range(4):
        for size in (1, 2, 3, 4):
            counting(size)
    assert len(counting.steps.graphs) == len(counting.recorded) == 2
    assert counting.steps.problem is None
    assert counting.total == 4 * 10


def test_graphs_that_are_given_up_are_freed() -> None:
    counting = Counting()
    for _ in range(4):
        counting(1)
    assert counting.steps.graphs
    counting.faults["record"] = RuntimeError("")
    for _ in range(3):
        counting(2)
    assert counting.steps.problem == "RuntimeError('')"
    assert not counting.steps.graphs
    assert counting.total == 4 + 6


def test_a_step_that_cannot_be_undone_ends_the_training() -> None:
    """It would go on from a state that it should not have; the message has what came first."""
    counting = Counting(record=RuntimeError("out of memory\nwith more lines"), undo=RuntimeError())
    for _ in range(3):
        counting(1)
    with pytest.raises(CptError, match=r"cannot be undone \(out of memory\); set cuda_graphs: off") as raised:
        counting(1)
    assert isinstance(raised.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (Wrong(), "training without CUDA graphs: a replayed step differs by"),
        (Idle(), "training without CUDA graphs: a replayed step differs by"),
        (Broken(), "training without CUDA graphs: operation not permitted when stream is capturing"),
    ],
)
def test_what_cannot_be_trusted_is_not_used(record: StandIn, line: str) -> None:
    """The state is put back, one line tells of it, and training goes on to the same bits."""
    graphed = trained("cpt", record)
    assert same(trained("cpt", None), graphed)
    told = [text for text in graphed[2] if "graphs" in text]
    assert len(told) == 1
    assert told[0].startswith(line)
    assert told[0].endswith(graphed[1].cuda_graphs)
    assert "more lines" not in told[0]


def test_replayed_steps_scale_losses_alike() -> None:
    graphed = trained("ivlp", StandIn(), scaled=True)
    assert graphed[1].cuda_graphs == "captured"
    assert same(trained("ivlp", None, scaled=True), graphed)


def test_a_graph_that_keeps_something_of_its_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that reads the host's part of a batch, here its random stream, would repeat it for ever."""
    kind = registry.get("coop")
    plain = kind.losses

    def losses(self, image, batch, training_set):
        found = plain(self, image, batch, training_set)
        return {"cross_entropy": found["cross_entropy"] * (1 + batch.random.random())}

    monkeypatch.setattr(kind, "losses", losses)
    *_, lines = trained("coop", StandIn())
    assert any("training without CUDA graphs: a replayed step differs by" in line for line in lines)


def test_an_interrupted_training_resumes_with_graphs(tmp_path) -> None:
    from tests.helpers.contract import InterruptedHereError

    def loop_of(toy: Toy, stop: tuple[int, int] | None, record: Record | None) -> Loop:
        toy.method.hp = toy.hp.model_copy(update={"epochs": EPOCHS})
        kept = CheckpointFile(tmp_path / "checkpoint", "key", 0.0)
        return Loop(toy.method, toy.training, Batches(toy, stop), kept, lambda _: None, record)  # type: ignore[arg-type]

    record = StandIn()
    record.loop = loop_of(Toy("promptsrc"), (4, 1), record)
    with pytest.raises(InterruptedHereError):
        record.loop.run()
    toy, again = Toy("promptsrc"), StandIn()
    again.loop = loop_of(toy, None, again)
    again.loop.run()
    assert again.loop.resumed
    assert again.replayed
    assert same(trained("promptsrc", None), (toy, again.loop, []))
