"""The training loop against one written out here: torch's SGD, rates typed from the schedule, means step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cpt.methods.base.hyperparameters import TrainingHyperparameters
from cpt.metrics import geometry
from cpt.training.batches import balanced_order, epoch_order, repetitions
from cpt.training.checkpoint import CheckpointFile
from cpt.training.loop import Loop
from cpt.training.schedule import reweighted
from tests.helpers.contract import Batches, Toy

RATES = (1e-5, 0.0025, 0.001875)
"""Of three epochs: warm-up, then 0.0025 (1 + cos(π e / 3)) / 2 for e = 0, 1."""


def trained(**changes: Any) -> tuple[Toy, list[dict[str, float]], dict[int, dict[str, torch.Tensor]]]:
    """Three epochs of two batches of three images."""
    toy = Toy("cpt", **changes)
    toy.method.hp = toy.hp.model_copy(update={"epochs": 3})
    loop = Loop(toy.method, toy.training, Batches(toy, None), CheckpointFile(None, "", 0.0), lambda _: None)  # type: ignore[arg-type]
    return toy, *loop.run()


def means_of(features: list[torch.Tensor], labels: list[int], classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean feature and number of images of every class, zeros where it has none."""
    rows = [[f for f, y in zip(features, labels, strict=True) if y == c] for c in range(classes)]
    means = [torch.stack(own).mean(dim=0) if own else torch.zeros_like(features[0]) for own in rows]
    return torch.stack(means), torch.tensor([len(own) for own in rows])


def test_epochs_and_steps_are_those_of_torchs_sgd() -> None:
    """Learned tensors, snapshots and every column of the history; nothing of one epoch is left in the next."""
    toy, history, snapshots = trained(snapshots=True)
    ours = Toy("cpt")
    method, learned = ours.method, list(ours.method.parameters())
    weights = {"cross_entropy": 1.0, "separation": 0.25, "consistency": 0.15, "anchor": 0.10}
    sgd = torch.optim.SGD(learned, lr=1.0, momentum=0.9, weight_decay=5e-4)
    for epoch, rate in enumerate(RATES):
        row, seen, labels = history[epoch], [], []
        measured: dict[str, list[float]] = {}
        for step in range(2):
            batch = ours.batch(10 * epoch + step, 3)
            seen += list(method.image_features(batch.images).detach().double())
            labels += batch.labels.tolist()
            components = ours.step(batch).losses
            loss = sum(weights[name] * value for name, value in components.items())
            sgd.zero_grad()
            loss.backward()
            norm = torch.cat([parameter.grad.flatten() for parameter in learned]).norm()
            found = {"loss": loss, "gradient_norm": norm} | {f"loss_{k}": v for k, v in components.items()}
            for name, value in found.items():
                measured.setdefault(name, []).append(value.item())
            sgd.param_groups[0]["lr"] = rate
            sgd.step()
        assert (row["epoch"], row["steps"], row["learning_rate"]) == (epoch + 1, 2, rate)
        for name, values in measured.items():
            assert row[name] == pytest.approx(np.mean(values), rel=1e-5), name
        with torch.no_grad():
            text = method.text_features(ours.classes)
        means, counts = means_of(seen, labels, len(text))
        assert counts.sum() == 6
        expected = geometry.collapse_measures(text, means, counts, ours.training.clusters)
        cosines = [float(text[i] @ text[j]) for i in range(len(text)) for j in range(len(text)) if i != j]
        expected |= {
            "mean_cosine": float(np.mean(cosines)),
            "drift": 1 - F.cosine_similarity(text, ours.classes.frozen).mean().item(),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), name
        for name, value in method.state_dict().items():
            assert torch.allclose(snapshots[epoch + 1][name], value, atol=1e-6), name
    assert set(snapshots) == {1, 2, 3}
    assert any(not np.isnan(row["within_class_variability"]) for row in history)
    for name, value in method.state_dict().items():
        assert torch.equal(toy.method.state_dict()[name], snapshots[3][name])
        assert torch.allclose(toy.method.state_dict()[name], value, atol=1e-6), name


def test_order_of_the_images_is_of_seed_and_epoch() -> None:
    orders = [np.concatenate(epoch_order(48, 16, seed, epoch)).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(48)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert orders[0] == np.concatenate(epoch_order(48, 4, 1, 0)).tolist(), "whatever the batches"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 5), st.integers(0, 3))
def test_a_balanced_epoch(counts: list[int], batch_size: int, seed: int, epoch: int) -> None:
    """As many batches of the same sizes; as many draws of every class, and of every image of a class."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    order = balanced_order(labels, batch_size, seed, epoch)
    assert list(map(len, order)) == list(map(len, epoch_order(len(labels), batch_size, seed, epoch)))
    drawn = np.bincount(np.concatenate(order), minlength=len(labels))
    of_classes = np.bincount(labels[np.concatenate(order)], minlength=len(counts))
    assert np.ptp(of_classes) <= 1
    assert all(np.ptp(drawn[labels == c]) <= 1 for c in range(len(counts)))
    again = balanced_order(labels, batch_size, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(order, again, strict=True))
    before = np.concatenate(repetitions(order))
    positions = np.concatenate(order).tolist()
    assert before.tolist() == [positions[:i].count(position) for i, position in enumerate(positions)]


def test_over_epochs_every_image_has_its_share() -> None:
    """The chance of a class is 1/K and that of an image of it 1/n_c, whatever the order of the labels."""
    labels = np.repeat(np.arange(4), [40, 13, 2, 1])
    epochs = [np.concatenate(balanced_order(labels, 5, 1, epoch)) for epoch in range(400)]
    assert len({tuple(order) for order in epochs}) == 400
    shares = np.bincount(np.concatenate(epochs), minlength=56) / (400 * 55)
    assert shares == pytest.approx((0.25 / np.array([40, 13, 2, 1]))[labels], rel=0.25)
    first = np.bincount(labels[[order[0] for order in epochs]], minlength=4) / 400
    assert first == pytest.approx(np.full(4, 0.25), abs=0.08)


@pytest.mark.parametrize(
    ("share", "epochs", "expected"),
    [(0.0, 3, 0), (0.8, 1, 0), (0.8, 2, 1), (0.8, 5, 4), (0.8, 12, 9), (0.8, 200, 160), (0.58, 50, 29), (0.5, 4, 2)],
)
def test_when_class_weights_begin_to_act(share: float, epochs: int, expected: int) -> None:
    hp = TrainingHyperparameters(reweight="class_balanced", reweight_after=share, epochs=epochs)
    assert [reweighted(hp, epoch) for epoch in range(epochs)] == [epoch >= expected for epoch in range(epochs)]


def test_weights_that_act_late_change_nothing_before() -> None:
    """Until then the training is bit by bit the one without them; then it is the loop of the class-weighted loss."""
    late: dict[str, Any] = {"reweight": "generalized", "reweight_after": 0.5, "snapshots": True}
    histories, snapshots = {}, {}
    for name, changes in (("plain", {"snapshots": True}), ("late", late), ("never", late | {"reweight_after": 0.99})):
        toy = Toy("coop", **changes)
        toy.method.hp = toy.hp.model_copy(update={"epochs": 4})
        loop = Loop(toy.method, toy.training, Batches(toy, None), CheckpointFile(None, "", 0.0), lambda _: None)  # type: ignore[arg-type]
        histories[name], snapshots[name] = loop.run()
    for epoch in range(1, 5):
        late_tensors, plain_tensors = snapshots["late"][epoch], snapshots["plain"][epoch]
        same = all(torch.equal(late_tensors[key], value) for key, value in plain_tensors.items())
        assert same == (epoch <= 2)
        assert (histories["late"][epoch - 1]["loss"] == histories["plain"][epoch - 1]["loss"]) == (epoch <= 2)
    assert histories["never"][2]["loss"] == histories["plain"][2]["loss"]
    assert histories["never"][3]["loss"] != histories["plain"][3]["loss"]
