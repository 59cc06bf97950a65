"""Trainings and predictions on every family of backbones, by the stages of the workflow; or a refusal in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cpt.clip.backbone import Clip, load_backbone
from cpt.clip.make_backbone import load_tokenizer, make_backbone
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.features.images import make_image_features
from cpt.features.make_clusters import make_clusters
from cpt.features.text import make_text_features
from cpt.files.paths import PREDICTIONS, PROMPTS
from cpt.files.stage_files import read_parquet, read_tensors
from cpt.training.train import train
from tests.helpers.experiment import train_inputs
from tests.helpers.families import NAMES, UNCHANGED, configuration

METHODS = ("zeroshot", "coop", "ivlp", "cpt", "lift")
TARGETS = [("land", "base"), ("land", "new")]


@dataclass
class Place:
    """The folder of an experiment whose backbone is of one family."""

    root: Path
    clip: Clip


@pytest.fixture(scope="module")
def place(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Place]:
    """Makes what comes before training, with the images and splits of ``results``."""

    @cache
    def make(family: str) -> Place:
        root = tmp_path_factory.mktemp(family)
        (root / "model.json").write_text(json.dumps(configuration(family)))
        make_backbone(family, str(root / "model.json"), "random", root / "backbone.json")
        for name in ("data", "splits"):
            (root / name).symlink_to(results / name)
        clip, tokenizer = load_backbone(root / "backbone.json"), load_tokenizer(root / "backbone.json")
        manifest, features = root / "data/land/manifest.parquet", root / "features/land"
        names = read_manifest(manifest).class_names
        text = features / "text-single.safetensors"
        make_text_features(clip, tokenizer, names, ["a photo of a {}."], "a photo of a {}.", text)
        for part in ("train", "test"):
            make_image_features(clip, manifest, part, features / f"images-{part}.safetensors")
        make_clusters(text, "base_to_new", "spherical", 1, root / "clusters.parquet", per=2)
        return Place(root, clip)

    return make


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", NAMES)
def test_a_family_is_trained_and_tested(family: str, method: str, place: Callable[[str], Place]) -> None:
    made = place(family)
    inputs = train_inputs(
        made.root, method, clusters=made.root / "clusters.parquet" if method == "cpt" else None,
        image_features=made.root / "features/land/images-train.safetensors" if method == "coop" else None,
    )  # fmt: skip
    if method == "zeroshot":
        inputs = replace(inputs, hyperparameters={"templates": "single"})
    folder, lines = made.root / "runs" / method, []
    if family in UNCHANGED and method in ("ivlp", "cpt", "lift"):
        with pytest.raises(CptError) as refused:
            train(inputs, folder, lines.append)
        assert str(refused.value).startswith(f"method {method}: puts prompts or adapters into the image tower's blocks")
        assert made.clip.vision.inside.name in str(refused.value)
        assert "\n" not in str(refused.value)
        return
    train(inputs, folder, lines.append)
    learned, _ = read_tensors(folder / "prompts.safetensors", PROMPTS)
    assert bool(learned) == (method != "zeroshot")
    assert all(value.isfinite().all() for value in learned.values())
    predict(folder, made.root, TARGETS, device="cpu", log=lines.append)
    rows = read_parquet(folder / "predictions.parquet", PREDICTIONS)[0].to_pylist()
    assert {(row["target"], row["subset"]) for row in rows} == set(TARGETS)
    assert np.isfinite([row["true_score"] for row in rows]).all()
