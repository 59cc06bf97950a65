"""Half-precision towers: they predict what those in float32 predict, and what overflows is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from benchmarks import precision
from benchmarks.precision import CONFIGURATION, METHODS, SUBSETS, chosen, compared, prepared
from cpt.clip.backbone import SCHEMA, load_backbone
from cpt.clip.blocks import Block
from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.experiment import config, grid
from cpt.features.images import make_image_features
from cpt.files.paths import RUN
from cpt.files.stage_files import read_json, read_tensors, sha256_file, write_json, write_tensors
from cpt.methods.base.hyperparameters import TrainingHyperparameters
from cpt.training.optimizers import Optimizer
from cpt.training.train import TrainInputs, train
from tests.helpers.experiment import train_inputs

EQUAL = {"bfloat16": 96.0, "float16": 97.0}
"""Least share of predictions equal to float32's, in percent."""
POINTS = 1.0
"""Largest difference of an accuracy, in percentage points."""
Inputs = Callable[[str], TrainInputs]


def silent(_: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inputs]:
    """A long-tailed training on the embedded experiment's Flowers: three epochs of each method."""
    folder = tmp_path_factory.mktemp("precision")
    resolved = grid.build(config.load([CONFIGURATION]), str(CONFIGURATION))

    def inputs(method: str) -> TrainInputs:
        made = prepared(resolved, chosen(resolved, "flowers", method), folder)
        return replace(made, hyperparameters=made.hyperparameters | {"epochs": 3})

    return folder, inputs


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_predicts_alike(flowers: tuple[Path, Inputs], method: str) -> None:
    folder, inputs = flowers
    found = compared(inputs(method), folder, silent)
    full = found["float32"]
    for name, least in EQUAL.items():
        assert found[name]["equal"] >= least
        for subset in SUBSETS:
            assert abs(found[name][subset] - full[subset]) <= POINTS
    assert any(found[name]["equal"] < 100 for name in EQUAL), "nothing was rounded"


@pytest.mark.slow
def test_rounding_to_eight_bits_is_found(flowers: tuple[Path, Inputs], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, inputs = flowers
    plain = Block.finish

    def rounded(block: Block, *given: Any) -> Tensor:
        found = plain(block, *given)
        if found.dtype != torch.bfloat16:
            return found
        coarse = found.detach().to(torch.float8_e5m2).to(found.dtype)
        return found + (coarse - found.detach())

    monkeypatch.setattr(Block, "finish", rounded)
    monkeypatch.setattr(precision, "PRECISIONS", ("float32", "bfloat16"))
    assert compared(inputs("ivlp"), folder, silent)["bfloat16"]["equal"] < EQUAL["bfloat16"]


@pytest.fixture
def overflowing(results: Path, tmp_path: Path) -> Path:
    """The experiment with a tiny CLIP whose image features are too large for float16; nothing else is."""
    for name in ("data", "splits"):
        (tmp_path / name).symlink_to(results / name)
    text = Path("features/land/text-single.safetensors")
    (tmp_path / text).parent.mkdir(parents=True)
    (tmp_path / text).symlink_to(results / text)
    tensors, _ = read_tensors(results / "backbone.safetensors", "cpt.towers/1")
    tensors["vision.proj"] = 2e5 * tensors["vision.proj"].float()
    write_tensors(tmp_path / "backbone.safetensors", tensors, "cpt.towers/1")
    record = read_json(results / "backbone.json", SCHEMA) | {"sha256": sha256_file(tmp_path / "backbone.safetensors")}
    write_json(tmp_path / "backbone.json", record)
    return tmp_path


def test_scaled_losses_keep_gradients_that_float16_loses(results: Path) -> None:
    """A loss so small that its gradient in the towers is below float16's smallest number."""
    found: dict[str, Tensor] = {}
    for name in ("float32", "float16", "float16_scaled"):
        text = load_backbone(results / "backbone.json", precision=name).text
        learned = nn.Parameter(0.02 * torch.ones(2, text.width))
        optimizer = Optimizer([learned], TrainingHyperparameters(), scaled=name == "float16_scaled")
        tokens, slots = torch.tensor([[1, 5, 6, 7, 9], [1, 4, 3, 2, 9]]), [[-1, 0, 1, -1, -1]] * 2
        features = text(text.pack(tokens, slots), context=learned)
        optimizer.backward(1e-9 * features[:, ::3].sum())
        assert learned.grad is not None
        found[name] = learned.grad
    assert found["float32"].abs().max() > 0
    assert not found["float16"].any()
    largest = float(found["float32"].abs().max())
    torch.testing.assert_close(found["float16_scaled"], found["float32"], rtol=0.05, atol=0.02 * largest)


def test_float16_with_scaled_losses_trains_and_predicts(results: Path, tmp_path: Path) -> None:
    inputs = train_inputs(results, "ivlp", precision="float16_scaled")
    train(inputs, tmp_path / "runs/x", silent)
    history = pq.read_table(tmp_path / "runs/x/history.parquet").to_pylist()
    assert [row["skipped"] * row["steps"] for row in history] == [1, 0], "2^16 is too much for the first step"
    train(replace(inputs, precision="float16"), tmp_path / "runs/y", silent)
    plain = pq.read_table(tmp_path / "runs/y/history.parquet").to_pylist()
    assert "skipped" not in plain[0]
    assert abs(history[-1]["loss"] - plain[-1]["loss"]) < 0.05 * plain[-1]["loss"]
    assert read_json(tmp_path / "runs/x/run.json", RUN)["precision"] == "float16_scaled"
    predict(tmp_path / "runs/x", results, [("land", "new")], device="cpu", log=silent)


def test_an_overflow_ends_training(overflowing: Path) -> None:
    inputs = train_inputs(overflowing, "ivlp", precision="float16")
    with pytest.raises(CptError, match="is nan; lower learning_rate or a loss weight, or set precision: float32"):
        train(inputs, overflowing / "runs/x", silent)
    train(replace(inputs, precision="float32"), overflowing / "runs/x", silent)


def test_an_overflow_ends_a_prediction(overflowing: Path) -> None:
    inputs = replace(
        train_inputs(overflowing, "zeroshot", precision="float16"), hyperparameters={"templates": "single"}
    )
    train(inputs, overflowing / "runs/x", silent)
    with pytest.raises(CptError, match="land/new: scores are not finite; set precision: float32"):
        predict(overflowing / "runs/x", overflowing, [("land", "new")], device="cpu", log=silent)


def test_an_overflow_ends_frozen_features(overflowing: Path) -> None:
    manifest, output = overflowing / "data/land/manifest.parquet", overflowing / "features.safetensors"
    with pytest.raises(CptError, match="not finite in float16; set precision: float32"):
        make_image_features(load_backbone(overflowing / "backbone.json", precision="float16"), manifest, "test", output)
    assert make_image_features(load_backbone(overflowing / "backbone.json"), manifest, "test", output) == 60
