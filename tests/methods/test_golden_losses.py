"""Losses, epoch weights and schedule against the published code's numbers (tests/golden/README.md)."""

from __future__ import annotations

import re

import pytest
from torch.nn import functional as F

from cpt.methods.base.hyperparameters import TrainingHyperparameters
from cpt.methods.base.layers import gaussian_weights
from cpt.methods.base.losses import prior_adjusted
from cpt.training.schedule import learning_rate
from tests.helpers.golden_clip import Case, digest, normals
from tests.helpers.golden_run import FEATURES, GRADIENT, LOSS, RATE


def test_epoch_weights() -> None:
    case = Case("promptsrc_gauss")
    for name in case.meta["scalars"]:
        epochs, mean, std = (int(re.sub(r"\D", "", part)) for part in name.split("_"))
        weights = gaussian_weights(epochs, mean, std)
        case.assert_scalar(name, weights, RATE)
        case.assert_tensor(name, weights, 1e-7)
    case.assert_complete(set())


@pytest.mark.parametrize(
    ("name", "prior"),
    [
        ("cross_entropy", None),
        ("logit_adjusted_tau1", ("logit_adjustment", 1.0)),
        ("logit_adjusted_tau2", ("logit_adjustment", 2.0)),
        ("compensating_logit_adjusted", ("compensating", 1.0)),
        ("balanced_softmax", ("balanced_softmax", 1.0)),
    ],
)  # LADE, focal, class-balanced and generalized reweighting are none of our losses
def test_loss_with_a_prior(name: str, prior: tuple[str, float] | None) -> None:
    case = Case("longtail_losses")
    logits = 3 * normals(digest(case.meta["weight_salt"] + "lt:logits"), case["logits"].shape)
    case.assert_tensor("logits", logits, FEATURES)
    logits.requires_grad_()
    adjusted = prior_adjusted(logits, case["counts"].float(), *prior) if prior else logits
    loss = F.cross_entropy(adjusted, case["labels"].long())
    loss.backward()
    case.assert_scalar(name, loss, LOSS)
    case.assert_tensor(f"grad/{name}", logits.grad, GRADIENT, relative=True)


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
