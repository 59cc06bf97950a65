"""Classifiers of frozen features: classes without a row or without images, and what their switches do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.methods.base.class_rows import mean_probability, own_rows
from cpt.methods.base.describe import learned_values
from tests.helpers.contract import CLASSES, OTHERS, InterruptedHereError, Toy, classes, images, unit

ROWS = ("zs_lp", "clap", "taskres", "cross_modal", "ss_text")
CACHES = ("tip_adapter", "tip_adapter_f")
SHOWN = images(range(6), view=9)
COUNTS = [4, 0, 2, 1, 3]
"""One class without images; CLASSES[1]."""


def logits(features: Tensor, text: Tensor) -> Tensor:
    return 30 * unit(features) @ unit(text).T


def learned(name: str, **changes: Any) -> Toy:
    """A method that has learned something."""
    toy = Toy(name, **changes)
    if toy.kind.trains:
        toy.train(epochs=2)
    return toy


@pytest.mark.parametrize("name", [*ROWS, *CACHES])
def test_a_class_that_was_not_trained_is_scored_by_its_text(name: str) -> None:
    toy, others = learned(name), classes(OTHERS)
    zero_shot = Toy("zeroshot").scores(SHOWN, others)
    raw = logits(toy.clip.vision(SHOWN), others.frozen)
    expected = zero_shot if name in ("ss_text", *CACHES) else raw
    assert torch.allclose(toy.scores(SHOWN, others, trained=False), expected, atol=1e-4)


@pytest.mark.parametrize("name", [*ROWS, *CACHES])
def test_trained_and_other_classes_side_by_side(name: str) -> None:
    """Every class is found by its name, wherever it stands and whatever dataset it is of."""
    toy = learned(name)
    mixed = classes((OTHERS[0], CLASSES[3], OTHERS[1], CLASSES[0]))
    found = toy.scores(SHOWN, mixed, trained=False)
    own, other = toy.scores(SHOWN), toy.scores(SHOWN, classes(OTHERS[:2]), trained=False)
    expected = torch.stack([other[:, 0], own[:, 3], other[:, 1], own[:, 0]], dim=1)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found[:, 1], Toy("zeroshot").scores(SHOWN, mixed)[:, 1], atol=1e-3)


def test_classes_of_one_name_have_their_own_rows() -> None:
    assert own_rows(["a", "b", "a"], ["a", "c", "a", "a", "b"]) == [0, None, 2, None, 1]
    assert own_rows(["a", "b", "a"], ["a", "c", "a", "b", "a"]) == [0, None, 2, 1, None]


@pytest.mark.parametrize("name", [*ROWS, *CACHES, "clip_adapter"])
def test_a_class_without_images_is_no_problem(name: str) -> None:
    toy = learned(name, counts=COUNTS)
    assert all(value.isfinite().all() for value in toy.method.state_dict().values() if value.is_floating_point())
    scores = toy.scores(SHOWN)
    assert scores.isfinite().all()
    if not toy.kind.trains:  # nothing is known of the class but its name
        assert torch.allclose(scores[:, 1], Toy("zeroshot").scores(SHOWN)[:, 1], atol=1e-4)


@pytest.mark.parametrize("rule", ["zero_shot", "corrected", "constant", "balanced", "adaptive"])
def test_multipliers_of_a_class_without_images(rule: str) -> None:
    toy = Toy("clap", counts=COUNTS, multipliers=rule)
    found = toy.method.get_buffer("multipliers")
    assert found[1] == pytest.approx(found[[0, 2, 3, 4]].mean().item(), rel=1e-5)
    if rule in ("corrected", "balanced"):
        assert found.mean() == pytest.approx(1)


def test_mean_probabilities_by_hand() -> None:
    features, text = torch.tensor([[3.0, 0.0], [0.0, 0.5], [4.0, 3.0]]), torch.tensor([[2.0, 0.0], [0.0, 7.0]])
    own = [1 / (1 + torch.tensor(-gap).exp().item()) for gap in (2.0, 2.0, 2 * (0.8 - 0.6))]
    found = mean_probability(features, text, torch.tensor([0, 1, 0]), 2.0)
    assert found.tolist() == pytest.approx([(own[0] + own[2]) / 2, own[1]], rel=1e-6)


@pytest.mark.parametrize("rule", ["uniform", "shots", "zero_shot", "fixed"])
def test_ss_text_is_of_unit_features(rule: str) -> None:
    """Longer raw features change nothing: as the published encoders, it sees directions."""
    toy = Toy("ss_text", text_weight=rule)
    before = toy.method.get_buffer("rows").clone()
    toy.method.prepare(toy.training, 3 * toy.frozen())
    assert torch.allclose(toy.method.get_buffer("rows"), before, atol=1e-6)
    assert torch.allclose(Toy("ss_text", counts=COUNTS).method.get_buffer("rows")[1], toy.classes.directions[1])


def test_cross_modal_without_texts_is_a_linear_probe() -> None:
    alone, probe = (learned(name, text_share=0.0) for name in ("cross_modal", "zs_lp"))
    assert all(map(torch.equal, alone.method.parameters(), probe.method.parameters()))
    texts = Toy("cross_modal", text_share=1.0)
    one, other = (texts.method.step(texts.method.draw(texts.at(shown), texts.training), texts.training)
                  for shown in (range(6), range(6, 12)))  # fmt: skip
    assert torch.equal(one.losses["cross_entropy"], other.losses["cross_entropy"])


def test_half_of_the_examples_are_texts_of_any_class() -> None:
    toy = Toy("cross_modal")
    drawn = torch.cat([toy.method.draw(toy.batch(step), toy.training).drawn for step in range(200)])
    assert (drawn >= 0).float().mean() == pytest.approx(0.5, abs=0.05)
    shares = torch.bincount(drawn[drawn >= 0], minlength=5) / (drawn >= 0).sum()
    assert shares.tolist() == pytest.approx([0.2] * 5, abs=0.06)


@pytest.mark.parametrize("name", CACHES)
def test_mean_values_by_hand(name: str) -> None:
    """Many images of a class count as one by default as many, or as their mean."""
    toy, mean = Toy(name, alpha=2.0, beta=3.0), Toy(name, alpha=2.0, beta=3.0, mean_values=True)
    image, keys = unit(toy.clip.vision(SHOWN)), unit(toy.frozen())
    near = (-3.0 * (1 - image @ keys.T)).exp()
    zero_shot = Toy("zeroshot").scores(SHOWN)
    for k, (sums, means) in enumerate(zip(toy.scores(SHOWN).T, mean.scores(SHOWN).T, strict=True)):
        own = near[:, toy.labels == k]
        assert torch.allclose(sums, zero_shot[:, k] + 2 * own.sum(dim=1), atol=1e-4)
        assert torch.allclose(means, zero_shot[:, k] + 2 * own.mean(dim=1), atol=1e-4)


def test_adaptive_multipliers_survive_an_interruption(tmp_path: Path) -> None:
    whole = Toy("clap", multipliers="adaptive")
    whole.train(epochs=4)
    with pytest.raises(InterruptedHereError):
        Toy("clap", multipliers="adaptive").train(epochs=4, checkpoint=tmp_path / "c", stop=(3, 1))
    resumed = Toy("clap", multipliers="adaptive")
    resumed.train(epochs=4, checkpoint=tmp_path / "c")
    start = Toy("clap").method.get_buffer("multipliers")
    for key, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[key]), key
    assert (whole.method.get_buffer("multipliers") > start).all()


def test_cosine_constraint_ignores_the_length_of_a_row() -> None:
    toy = Toy("clap", constraint="cosine")
    toy.method.get_parameter("rows").data *= 2
    assert toy.step(toy.batch()).losses["constraint"].item() == pytest.approx(0, abs=1e-6)


def test_clip_adapter_by_hand() -> None:
    toy = Toy("clip_adapter").shaken()
    raw, (first, second) = toy.clip.vision(SHOWN), toy.method.parameters()
    adapted = 0.2 * F.relu(F.relu(raw @ first.T) @ second.T) + 0.8 * raw
    assert torch.allclose(toy.scores(SHOWN), logits(adapted, toy.classes.frozen), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "count"),
    [(name, 40 * 512) for name in ("zs_lp", "clap", "taskres", "cross_modal")]
    + [("clip_adapter", 2 * 512 * 128), ("tip_adapter_f", 80 * 512), ("tip_adapter", 0), ("ss_text", 0)],
)
def test_learned_values_on_vit_b16(name: str, count: int) -> None:
    """Of 40 classes with two images each: a row per class, a narrow network, or a key per image."""
    assert learned_values(name, "base_to_new") == count
