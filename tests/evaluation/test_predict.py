"""Predictions worked out from the frozen features with numpy, and those of single epochs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as tv
from PIL import Image

from cpt.data.manifest import read_manifest
from cpt.evaluation.predict import predict
from cpt.evaluation.trained import image_tower, read_trained
from cpt.experiment.runs import Run
from cpt.features.text import read_text_features
from cpt.files.paths import CLASSIFIER, PREDICTIONS, PROMPTS, RUN
from cpt.files.stage_files import read_json, read_parquet, read_tensors, write_tensors
from cpt.methods.base import registry
from cpt.training.train import train
from tests.helpers.experiment import linked, train_inputs

SUBSETS = {"base": range(5), "new": range(5, 10), "all": range(10)}


def silent(_: str) -> None:
    """No progress."""


def predicted(folder: Path, root: Path, subsets: Any = SUBSETS) -> list[dict[str, Any]]:
    predict(folder, root, [("land", subset) for subset in subsets], device="cpu", log=silent)
    return read_parquet(folder / "predictions.parquet", PREDICTIONS)[0].to_pylist()


@pytest.fixture(scope="module")
def zeroshot(results: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    root = linked(results, tmp_path_factory.mktemp("zeroshot"))
    inputs = train_inputs(results, "zeroshot")
    inputs.hyperparameters.clear()
    inputs.hyperparameters["templates"] = "single"
    train(inputs, root / "runs/x", silent)
    return root / "runs/x", predicted(root / "runs/x", root)


def frozen(results: Path) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """Unit text features (10, D), labels of the manifest's rows, and unit image features by row."""
    text = read_tensors(results / "features/land/text-single.safetensors", "cpt.text-features/4")[0]["features"].numpy()
    tensors, _ = read_tensors(results / "features/land/images-test.safetensors", "cpt.image-features/1")
    image = tensors["features"].numpy().astype(np.float64)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    by_row = dict(zip(tensors["rows"].tolist(), image, strict=True))
    labels = read_manifest(results / "data/land/manifest.parquet").label
    return text / np.linalg.norm(text, axis=1, keepdims=True), labels, by_row


@pytest.mark.parametrize("subset", SUBSETS)
def test_zero_shot_predictions_by_hand(results: Path, zeroshot: tuple[Path, list[dict[str, Any]]], subset: str) -> None:
    """Softmax of scaled cosines among the subset's classes: five best, and that of the true class; image by image."""
    text, labels, by_row = frozen(results)
    scale = read_json(results / "backbone.json", "cpt.backbone/1")["spec"]["logit_scale"]
    assert scale > 10
    members = list(SUBSETS[subset])
    rows = [row for row in zeroshot[1] if row["subset"] == subset]
    assert [row["row"] for row in rows] == sorted(row for row in by_row if labels[row] in members)
    for row in rows:
        logits = scale * text[members] @ by_row[row["row"]]
        scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = np.argsort(-scores)[:5]
        assert (row["target"], row["epoch"]) == ("land", None)
        assert members[row["label"]] == labels[row["row"]]
        np.testing.assert_allclose(row["top_scores"], scores[best], atol=1e-5)
        np.testing.assert_allclose(scores[row["top_labels"]], scores[best], atol=1e-5)
        assert row["true_score"] == pytest.approx(scores[row["label"]], abs=1e-5)
    assert any(row["true_score"] < row["top_scores"][0] for row in rows)


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_classifier_and_its_images_by_hand(
    results: Path, zeroshot: tuple[Path, list[dict[str, Any]]], subset: str
) -> None:
    """Unit texts of the subset's classes, and the mean of each class's unit image features."""
    text, labels, by_row = frozen(results)
    tensors, _ = read_tensors(zeroshot[0] / "classifier.safetensors", CLASSIFIER)
    assert set(tensors) == {f"land/{name}{part}" for name in SUBSETS for part in ("", "/images")}
    means = [np.mean([by_row[row] for row in by_row if labels[row] == label], axis=0) for label in SUBSETS[subset]]
    np.testing.assert_allclose(tensors[f"land/{subset}"], text[list(SUBSETS[subset])], atol=1e-6)
    np.testing.assert_allclose(tensors[f"land/{subset}/images"], means, atol=1e-6)


@pytest.mark.parametrize("subset", SUBSETS)
def test_files_name_images_and_classes(results: Path, zeroshot: tuple[Path, list[dict[str, Any]]], subset: str) -> None:
    manifest = read_manifest(results / "data/land/manifest.parquet")
    _, described = read_tensors(zeroshot[0] / "classifier.safetensors", CLASSIFIER)
    names = [manifest.class_names[label] for label in SUBSETS[subset]]
    assert described["classes"][f"land/{subset}"] == names
    for row in (row for row in zeroshot[1] if row["subset"] == subset):
        assert row["path"] == manifest.path[row["row"]]
        assert row["class_name"] == names[row["label"]]
        assert row["top_names"] == [names[label] for label in row["top_labels"]]


def test_the_classifier_says_whose_it_is_and_how_it_is_used(zeroshot: tuple[Path, list[dict[str, Any]]]) -> None:
    run, _ = zeroshot
    _, described = read_tensors(run / "classifier.safetensors", CLASSIFIER)
    record = read_json(run / "run.json", RUN)
    known = ("protocol", "dataset", "imbalance_ratio", "method", "seed", "hyperparameters")
    assert described["run"] == {"id": Run.of(record).id, **{key: record[key] for key in known}}
    backbone = read_json(run.parents[1] / "backbone.json", "cpt.backbone/1")
    assert described["logit_scale"] == backbone["spec"]["logit_scale"]
    assert (described["backbone"], described["backbone_sha256"]) == (backbone["name"], backbone["sha256"])
    assert (described["image_mean"], described["image_std"]) == (backbone["image_mean"], backbone["image_std"])


@pytest.mark.parametrize(
    ("method", "start", "tower"),
    [("coop", None, "frozen"), ("cpt", None, "prompted"), ("dpc", "coop", "frozen"), ("dpc", "ivlp", "prompted")],
)
def test_the_mark_of_prompted_images(method: str, start: str | None, tower: str) -> None:
    """A run that goes on from another has prompts where that one has."""
    hp = registry.get(method).hyperparameters(**({"start": start, "start_hyperparameters": {}} if start else {}))
    assert image_tower(Run("base_to_new", "land", 1.0, method, hp, 1)) == tower


def test_predictions_of_an_epoch_are_those_of_its_tensors(results: Path, tmp_path: Path) -> None:
    """Every snapshot, put in the place of the final tensors of a run, predicts what is recorded for its epoch."""
    root = linked(results, tmp_path)
    train(
        train_inputs(results, "ivlp", hyperparameters={"snapshots": True, "learning_rate": 0.02}),
        root / "runs/x",
        silent,
    )
    tensors, _ = read_tensors(root / "runs/x/prompts.safetensors", PROMPTS)
    rows = predicted(root / "runs/x", root, ["base", "new"])
    scores = []
    for epoch in (1, 2):
        prefix = f"snapshot.{epoch}/"
        (alone := root / f"runs/{epoch}").mkdir()
        shutil.copy(root / "runs/x/run.json", alone)
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        write_tensors(alone / "prompts.safetensors", own, PROMPTS, method="ivlp")
        expected = [row | {"epoch": epoch} for row in predicted(alone, root, ["base", "new"])]
        found = [row for row in rows if row["epoch"] == epoch]
        assert json.dumps(found) == json.dumps(expected)
        scores.append(torch.tensor([row["true_score"] for row in found]))
    assert (scores[0] - scores[1]).abs().max() > 1e-4
    final = [row for row in rows if row["epoch"] is None]
    assert [row["true_score"] for row in final] == scores[1].tolist()


def test_logits_of_five_crops_are_averaged(results: Path, tmp_path: Path) -> None:
    """Crops of torchvision, one by one through the method, against the recorded scores."""
    root = linked(results, tmp_path)
    inputs = train_inputs(results, "lift", hyperparameters={"test_crops": 5})
    train(inputs, root / "runs/x", silent)
    rows = [row for row in predicted(root / "runs/x", root, ["base", "new"]) if row["subset"] == "new"]
    manifest = read_manifest(root / "data/land/manifest.parquet")
    packed = np.load(root / "data/land/images.npy")
    trained = read_trained(root / "runs/x", root, "cpu")
    everything, _ = read_text_features(root / "features/land/text-single.safetensors")
    clip, size = trained.method.clip, trained.method.clip.image_size[0]
    transform = tv.Compose([tv.Resize(size + round(size * 24 / 224), tv.InterpolationMode.BICUBIC), tv.FiveCrop(size)])
    for row in rows[:4]:
        crops = transform(Image.fromarray(packed[manifest.index[row["row"]]]))
        pixels = torch.stack([tv.functional.to_tensor(crop) for crop in crops])
        with torch.no_grad():
            features = trained.method.image_features(tv.Normalize(clip.mean, clip.std)(pixels))
            logits = trained.method.class_logits(features, everything.take(range(5, 10))).mean(dim=0)
        scores = logits.softmax(dim=0)
        assert row["true_score"] == pytest.approx(float(scores[row["label"]]), abs=1e-5)
        np.testing.assert_allclose(row["top_scores"], scores.topk(5).values, atol=1e-5)
