"""Losses for long tails against their formulas, image by image in float64, and against each other."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpt.methods.base.hyperparameters import TrainingHyperparameters
from cpt.methods.base.imbalance import class_weights, focal
from cpt.methods.base.method import Batch, Method

SCALE = 20.0
COUNTS = st.lists(st.integers(1, 200), min_size=2, max_size=6)
few = settings(max_examples=40, deadline=None)


def example(counts: list[int], seed: int, size: int = 5) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and labels (B,)."""
    stream = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(size, len(counts), generator=stream), torch.randint(len(counts), (size,), generator=stream)


def loss(counts: list[int], logits: Tensor, labels: Tensor, *, reweighted: bool = True, **given: Any) -> float:
    """What a method with these hyperparameters gets."""
    method: Any = SimpleNamespace(hp=TrainingHyperparameters(**given), scale=SCALE)
    training: Any = SimpleNamespace(counts=torch.tensor(counts).float())
    batch = Batch(None, None, labels, reweighted=reweighted)
    return Method.cross_entropy(method, logits, batch, training).item()


def by_hand(counts: list[int], logits: Tensor, labels: Tensor, margin: float = 0.0, gamma: float = 0.0) -> list[float]:
    """The focal loss of every image, whose own logit lacks a margin."""
    largest, found = max(n**-0.25 for n in counts), []
    for z, y in zip(logits.double().tolist(), labels.tolist(), strict=True):
        z[y] -= SCALE * margin * counts[y] ** -0.25 / largest
        p = math.exp(z[y]) / sum(map(math.exp, z))
        found.append((1 - p) ** gamma * -math.log(p))
    return found


def weighted(weights: list[float], labels: Tensor, losses: list[float]) -> float:
    own = [weights[y] for y in labels.tolist()]
    return sum(w * value for w, value in zip(own, losses, strict=True)) / sum(own)


@few
@given(COUNTS, st.integers(0, 99), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.3, 0.5]))
def test_by_hand(counts: list[int], seed: int, gamma: float, margin: float) -> None:
    data = counts, *example(counts, seed)
    labels, total = data[2], sum(counts)
    plain, focused, margins = by_hand(*data), by_hand(*data, gamma=gamma), by_hand(*data, margin=margin)
    effective = [(1 - 0.99) / (1 - 0.99**n) for n in counts]
    shares = [(n / total) ** -1.5 for n in counts]
    balanced: dict[str, Any] = {"reweight": "class_balanced", "class_balanced_beta": 0.99}
    power: dict[str, Any] = {"reweight": "generalized", "generalized_exponent": 1.5}
    mean = [1.0] * len(counts)
    for found, expected in (
        (loss(*data, loss="focal", focal_gamma=gamma), weighted(mean, labels, focused)),
        (loss(*data, loss="ldam", ldam_margin=margin), weighted(mean, labels, margins)),
        (loss(*data, **balanced), weighted(effective, labels, plain)),
        (loss(*data, **power), weighted(shares, labels, plain)),
        (loss(*data, loss="focal", focal_gamma=gamma, **balanced), weighted(effective, labels, focused)),
        (loss(*data, loss="ldam", ldam_margin=margin, **power), weighted(shares, labels, margins)),
    ):
        assert found == pytest.approx(expected, rel=2e-5, abs=1e-6)


@few
@given(COUNTS, st.integers(0, 99), st.sampled_from([0.1, 0.7]))
def test_lade_by_hand(counts: list[int], seed: int, weight: float) -> None:
    logits, labels = example(counts, seed)
    z, y, total, number = logits.double().tolist(), labels.tolist(), sum(counts), len(counts)
    adjusted = torch.tensor([[z[i][c] + math.log(counts[c] / total) for c in range(number)] for i in range(len(z))])
    estimate = 0.0
    for c, n in enumerate(counts):
        own = [z[i][c] for i in range(len(z)) if y[i] == c]
        of_class = sum(own) / len(own) if own else 0.0
        of_all = math.log(sum(math.exp(row[c]) / (n / total * number) for row in z) / len(z))
        estimate += n / total * (of_class - of_all - 0.2 * of_all**2)
    expected = weighted([1.0] * number, labels, by_hand(counts, adjusted, labels)) - weight * estimate
    found = loss(counts, logits, labels, loss="lade", lade_weight=weight, lade_regularization=0.2)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@few
@given(COUNTS, st.integers(0, 99))
def test_what_equals_the_cross_entropy(counts: list[int], seed: int) -> None:
    data = counts, *example(counts, seed)
    plain, equal = loss(*data), ([7] * len(counts), *data[1:])
    for given_ in (
        {"loss": "ldam", "ldam_margin": 0.0},
        {"loss": "focal", "focal_gamma": 0.0},
        {"reweight": "class_balanced", "class_balanced_beta": 0.0},
    ):
        assert loss(*data, **given_) == pytest.approx(plain, rel=1e-5)  # type: ignore[arg-type]
    assert loss(*data, loss="lade", lade_weight=0.0) == pytest.approx(loss(*data, prior="logit_adjustment"), rel=1e-6)
    for reweight in ("class_balanced", "generalized"):
        assert loss(*equal, reweight=reweight) == pytest.approx(plain, rel=1e-6)
        assert loss(*data, reweight=reweight, reweighted=False) == plain, "bit for bit, as weights do not act yet"


def test_weights_near_their_limits() -> None:
    """β → 1 gives 1/n, as an exponent of 1 does; both have mean 1."""
    counts = torch.tensor([1.0, 4.0, 1300.0])
    inverse = class_weights(counts, "generalized", 1.0)
    assert torch.allclose(inverse, (3 / counts) / (1 / counts).sum())
    assert torch.allclose(class_weights(counts, "class_balanced", 1 - 1e-9), inverse, rtol=1e-5)
    assert class_weights(counts, "class_balanced", 0.9).mean().item() == pytest.approx(1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_an_image_that_is_certain_has_a_finite_focal_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0], [0.0, 200.0]], requires_grad=True)
    focal(logits, torch.tensor([0, 0, 0]), gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[0].any()
    assert torch.allclose(logits.grad[2], torch.tensor([-1.0, 1.0]) / 3)
