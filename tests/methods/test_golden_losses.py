"""Losses, epoch weights and schedule against the published code's numbers (tests/golden/README.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cpt.methods.base import imbalance
from cpt.methods.base.hyperparameters import TrainingHyperparameters
from cpt.methods.base.layers import gaussian_weights
from cpt.methods.base.method import Batch, Method
from cpt.training.schedule import learning_rate
from tests.helpers.golden_clip import Case, digest, normals
from tests.helpers.golden_run import FEATURES, GRADIENT, LOSS, OF_THE_RERUN, RATE


def test_epoch_weights() -> None:
    case = Case("promptsrc_gauss")
    for name in case.meta["scalars"]:
        epochs, mean, std = (int(re.sub(r"\D", "", part)) for part in name.split("_"))
        weights = gaussian_weights(epochs, mean, std)
        case.assert_scalar(name, weights, RATE)
        case.assert_tensor(name, weights, 1e-7)
    case.assert_complete(set())


SETTINGS: tuple[tuple[str, Callable[..., dict[str, Any]]], ...] = (
    ("cross_entropy", dict),
    ("balanced_softmax", lambda: {"prior": "balanced_softmax"}),
    (r"logit_adjusted_tau([\d.]+)", lambda tau: {"prior": "logit_adjustment", "prior_strength": tau}),
    ("compensating_logit_adjusted", lambda: {"prior": "compensating"}),
    (r"focal_gamma([\d.]+)", lambda gamma: {"loss": "focal", "focal_gamma": gamma}),
    (r"ldam_s([\d.]+)", lambda scale: {"loss": "ldam", "scale": scale}),
    (r"ldam_m([\d.]+)_s([\d.]+)", lambda margin, scale: {"loss": "ldam", "ldam_margin": margin, "scale": scale}),
    (r"class_balanced_beta([\d.]+)", lambda beta: {"reweight": "class_balanced", "class_balanced_beta": beta}),
    (r"generalized_reweight_([\d.]+)", lambda power: {"reweight": "generalized", "generalized_exponent": power}),
    ("lade", lambda: {"loss": "lade"}),
)
"""Names of the published losses, and what we set for them; ``scale`` is the factor of the method's cosines."""


def settings_of(name: str) -> dict[str, Any]:
    found = ((of, re.fullmatch(form, name)) for form, of in SETTINGS)
    return next(of(*map(float, match.groups())) for of, match in found if match)


@pytest.mark.parametrize("file", ["longtail_losses", "lift_losses"])
def test_losses_for_long_tails(file: str) -> None:
    case = Case(file)
    start = 3 * normals(digest(case.meta["weight_salt"] + "lt:logits"), case["logits"].shape)
    case.assert_tensor("logits", start, FEATURES)
    counts, labels = case["counts"].float(), case["labels"].long()
    case.assert_tensor("counts", counts.int(), 0)
    case.assert_tensor("labels", labels.int(), 0)
    for name in case.meta["scalars"].keys() - OF_THE_RERUN:
        given = settings_of(name)
        scale = given.pop("scale", 1.0)
        method: Any = SimpleNamespace(hp=TrainingHyperparameters(**given), scale=scale)
        logits = start.clone().requires_grad_()
        training: Any = SimpleNamespace(counts=counts)
        loss = Method.cross_entropy(method, logits, Batch(None, None, labels), training)
        loss.backward()
        cancels = name.startswith("class_balanced")  # published weights are in float32, where 1 - β^n cancels
        case.assert_scalar(name, loss, 2e-4 * loss.item() if cancels else LOSS)
        assert logits.grad is not None
        if cancels:
            case.assert_tensor(f"grad/{name}", logits.grad, 5e-5)
        else:
            case.assert_tensor(f"grad/{name}", logits.grad, GRADIENT, relative=True)
    if file == "lift_losses":
        case.assert_tensor("margins_ldam_s30", imbalance._margins(counts, 0.5), 1e-6)
        beta = imbalance.class_weights(counts, "class_balanced", 0.9999)
        case.assert_tensor("weights/class_balanced_beta0.9999", beta, 2e-4, relative=True)
        power = imbalance.class_weights(counts, "generalized", 1.2)
        case.assert_tensor("weights/generalized_reweight_1.2", power, 1e-6, relative=True)
    case.assert_complete(OF_THE_RERUN)


def test_learning_rates() -> None:
    meta = Case("lr_sequences").meta
    for name, expected in meta["scalars"].items():
        epochs, rate, warmup = name.split("_")
        hp = TrainingHyperparameters(
            epochs=int(epochs.removeprefix("epochs")),
            learning_rate=float(rate.removeprefix("lr")),
            warmup_epochs=int(warmup.removeprefix("warmup")),
            warmup_learning_rate=meta["warmup_cons_lr"],
        )
        ours = [learning_rate(hp, epoch) for epoch in range(len(expected))]
        assert ours == pytest.approx(expected, abs=RATE)
