"""Steps as CUDA graphs, with a stand-in for the recorder: the logic around a graph, for which no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cpt.methods.base import losses, registry
from cpt.training.checkpoint import CheckpointFile
from cpt.training.graphs import WARM_UP, Record
from cpt.training.loop import Loop
from tests.helpers.contract import Batches, Toy

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


def trained(name: str, record: StandIn | None) -> Training:
    toy, lines = Toy(name), []
    toy.method.hp = toy.hp.model_copy(update={"epochs": EPOCHS})
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


class Constants(StandIn):
    """Refuses a step that makes a constant while it is recorded: a graph would make it, without a value, for later."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        def made() -> list[int]:
            caches = (losses.positions, losses._zeros, losses._separation, losses._prior)
            return [cache.cache_info().currsize for cache in caches]

        before = made()
        replay = super().__call__(step)
        assert made() == before
        return replay


@pytest.mark.parametrize("name", ["cpt", "npt", "dpc"])
def test_no_constant_is_made_inside_a_graph(name: str) -> None:
    for cache in (losses.positions, losses._zeros, losses._separation, losses._prior):
        cache.cache_clear()
    record = Constants()
    trained(name, record)
    assert record.replayed


@pytest.mark.parametrize("name", TRAINED)
def test_replayed_steps_give_the_same_bits(name: str) -> None:
    record = StandIn()
    graphed = trained(name, record)
    assert same(trained(name, None), graphed)
    assert record.replayed >= 10
    loop = graphed[1]
    assert loop.graphs is not None
    assert loop.cuda_graphs == "captured"
    assert record.recorded == len(loop.graphs.graphs)
    assert record.replayed == 2 * EPOCHS - WARM_UP + record.recorded  # one check each
    assert record.recorded == 1 or name == "dpc"  # whose batches have different numbers of negatives


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
