"""The training loop against one written out here: torch's SGD, rates typed from the schedule, means step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cpt.metrics import geometry
from cpt.training.batches import epoch_order
from cpt.training.checkpoint import CheckpointFile
from cpt.training.loop import Loop
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
