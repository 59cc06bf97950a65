"""What ``precision: auto`` stands for, and that it reaches the jobs and their records."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cpt.cli import features
from cpt.clip import device
from cpt.clip.backbone import pretrained
from cpt.clip.device import automatic_precision, prepare_device
from cpt.errors import CptError
from cpt.files.paths import RUN
from cpt.files.stage_files import read_json
from cpt.training.train import train
from tests.helpers.experiment import train_inputs


@pytest.mark.parametrize(
    ("capability", "weights", "precision"),
    [
        (None, "openai", "float32"),
        (None, "laion2b_s34b_b88k", "float32"),
        ((9, 0), "openai", "float16"),
        ((9, 0), "laion2b_s34b_b88k", "bfloat16"),
        ((8, 0), "checkpoints/openai.pt", "bfloat16"),
        ((7, 5), "laion2b_s34b_b88k", "float16_scaled"),
        ((7, 0), "openai", "float16"),
    ],
)
def test_automatic_precision(capability: tuple[int, int] | None, weights: str, precision: str) -> None:
    assert automatic_precision(capability, weights) == precision


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16", "float16_scaled"])
def test_a_precision_that_is_asked_for_is_taken(precision: str) -> None:
    assert prepare_device("cpu", precision, 1, "openai") == (torch.device("cpu"), precision)


def test_a_cpu_computes_in_float32() -> None:
    assert prepare_device("cpu", "auto", 1, "openai") == (torch.device("cpu"), "float32")


def test_jobs_choose_by_their_weights_and_record_it(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "automatic_precision", lambda _, weights: {"shipped": "float16"}.get(weights))
    assert pretrained(results / "backbone.json") == "shipped"
    train(train_inputs(results, "coop", precision="auto"), tmp_path, lambda _: None)
    assert read_json(tmp_path / "run.json", RUN)["precision"] == "float16"
    assert features._clip(results / "backbone.json", "cpu", "auto", 1).dtype == torch.float16


def test_apples_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine with one has run this."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(CptError, match="device: mps asked for, but torch sees no Apple GPU; use device: cpu or auto"):
        prepare_device("mps", "auto", 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert prepare_device("mps", "auto", 1, "openai") == (torch.device("mps"), "float32")
    with pytest.raises(CptError, match="precision: bfloat16 on device: mps; use precision: float32"):
        prepare_device("mps", "bfloat16", 1)
