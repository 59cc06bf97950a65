"""GLA against its published code's numbers (tests/golden/README.md)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.features.text import Classes
from cpt.methods import gla
from cpt.methods.base.method import TrainingSet
from cpt.methods.base.registry import get
from tests.helpers.golden_clip import DEVICE, Case, golden_clip

CASES = ["gla_k5", "gla_k7_few", "gla_k10_longtail"]
LOGITS, TEMPERATURE, LOSS = 3e-4, 2e-5, 1e-5
OPTIMUM, PUBLISHED = 1e-5, 2e-5


class Run:
    """A method between fixed features."""

    def __init__(self, case: Case, **settings: Any) -> None:
        self.case, self.counts = case, torch.tensor(case.meta["counts"])
        text, count = case["zero_shot_text"].to(DEVICE), len(self.counts)
        tokens, lengths = torch.zeros(count, 77, dtype=torch.long), torch.ones(count, dtype=torch.long)
        self.classes = Classes(
            tuple(f"class {k}" for k in range(count)), tokens, 4, text, text, tokens, lengths, tokens
        )
        scale = case.meta["logit_scale_multiplier"]
        clip = replace(golden_clip(), embed_dim=text.shape[1], logit_scale=scale)
        kind = get("gla")
        hp = kind.hyperparameters(**settings)
        self.method: Any = kind(clip, hp, self.classes, torch.Generator().manual_seed(0)).to(DEVICE)
        tuned = case["finetuned_text"].to(DEVICE)
        self.method.tuned.raw_text_features = lambda _: tuned
        self.features, self.labels = case["features"].to(DEVICE), case["labels"].long().to(DEVICE)
        training = TrainingSet(self.classes, self.counts.float().to(DEVICE), labels=self.labels.cpu())
        self.method.prepare(training, self.features)

    def logits(self, features: Tensor) -> Tensor:
        """Of unit frozen features, which the finished run keeps."""
        both = F.normalize(torch.cat([features, features], dim=1), dim=1)
        return self.method.class_logits(both.to(DEVICE), self.classes)


@pytest.mark.parametrize("name", CASES)
def test_method(name: str) -> None:
    case = Case(name)
    optimum = Run(case, correction="none", tuned_temperature="search")
    published = Run(case, correction="none", tuned_temperature="search", solver="published")
    long_tail = Run(case, correction="published")
    method, test = optimum.method, case["test_features"]
    for key in ("features", "labels", "zero_shot_text", "finetuned_text", "test_features"):
        case.deviations[key] = 0.0
    zero_shot = method._zero_shot(optimum.features, optimum.classes)
    case.assert_tensor("zero_shot_logits", zero_shot, LOGITS)
    tuned = method.tuned.text_features(optimum.classes)
    for part, features in (("val", optimum.features), ("test", test.to(DEVICE))):
        case.assert_tensor(f"finetuned_{part}_logits", method.tuned.logits(features, tuned), LOGITS)
        case.assert_tensor(f"gla_{part}_logits", published.logits(features), LOGITS)
    case.assert_tensor("gla_test_logits_optimum_q", optimum.logits(test), LOGITS)
    over = method._zero_shot(test.to(DEVICE), optimum.classes) / method.temperatures[1]
    case.assert_tensor("zero_shot_test_logits_over_T", over, LOGITS)
    case.assert_tensor("gla_inference_with_p", long_tail.logits(test), LOGITS)
    without = Run(case, correction="none").logits(test) + math.log(len(optimum.counts))  # of a uniform p
    case.assert_tensor("gla_inference_without_p", without, LOGITS)
    case.assert_tensor("q_optimum", (-method.correction).exp(), OPTIMUM)
    case.assert_tensor("q_published_1000_steps", (-published.method.correction).exp(), PUBLISHED)
    case.assert_tensor("p", (optimum.method.correction - long_tail.method.correction).exp(), 1e-6)
    compare_temperatures(case, optimum)
    compare_losses(case, optimum, published)
    case.assert_complete({"rerun_identical", "optimum_residual"})


def compare_temperatures(case: Case, run: Run) -> None:
    scalars, temperatures = case.meta["scalars"], run.method.temperatures
    for at, name in enumerate(("T_finetuned", "T_zero_shot")):
        case.assert_scalar(name, temperatures[at], TEMPERATURE * scalars[name])
    logits = case["zero_shot_logits"]
    found = []
    for target, threshold, wanted, _ in scalars["temperature_search"]:
        at = gla.search(logits, target, threshold)
        assert math.isnan(at) == math.isnan(wanted), "the published search never ends"
        found.append([target, threshold, at, gla.confidence(logits, at)])
    rows = torch.tensor(found, dtype=torch.float64)
    near = torch.tensor(scalars["temperature_search"], dtype=torch.float64)
    assert torch.allclose(rows, near, rtol=TEMPERATURE, atol=0, equal_nan=True)
    stored = case["temperature_search"].double()
    assert torch.allclose(stored, near, rtol=1e-6, equal_nan=True)
    case.deviations |= dict.fromkeys(("temperature_search", "scalars.temperature_search"), 0.0)
    labels = run.labels.cpu()
    tuned = case["finetuned_val_logits"]
    for name, given in (("zero_shot_accuracy", logits), ("finetuned_val_accuracy", tuned)):
        case.assert_scalar(name, 100 * (given.argmax(dim=1) == labels).double().mean(), 1e-9)


def compare_losses(case: Case, optimum: Run, published: Run) -> None:
    """Cross-entropies of the estimates; at the optimum classes are predicted as often as they occur."""
    logits = (case["zero_shot_logits"].to(DEVICE) / optimum.method.temperatures[1]).double()
    uniform = torch.zeros_like(optimum.method.correction)
    for name, correction in (
        ("cross_entropy_optimum", optimum.method.correction),
        ("cross_entropy_published_1000_steps", published.method.correction),
        ("cross_entropy_uniform", uniform),
    ):
        case.assert_scalar(name, F.cross_entropy(logits + correction, optimum.labels), LOSS)
    summed = (logits + optimum.method.correction).softmax(dim=1).sum(dim=0).cpu()
    assert torch.allclose(summed, optimum.counts.double(), atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_where_the_published_search_never_ends_the_temperature_is_found(name: str) -> None:
    logits = Case(name)["zero_shot_logits"]
    for target in (28.49, 60, 90):
        assert gla.confidence(logits, gla.bisected(logits, target)) == pytest.approx(target, abs=0.01)
