"""Prepared experiments to evaluate and train on: the real stages, called directly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.problem import ARCHITECTURE, PHOTOGRAPH, QUICK
from cpt.clip.backbone import load_backbone
from cpt.clip.make_backbone import load_tokenizer, make_backbone
from cpt.data.entry import Entry
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split, write_split
from cpt.features.text import make_text_features
from cpt.files import paths
from cpt.training.train import TrainInputs, train

PHOTOS, CLASSES = "photos", 10


def photographs(folder: Path, test: int) -> Path:
    """Write a dataset of JPEGs of a photograph's size and detail: one training image a class, ``test`` in all."""
    stream = np.random.default_rng(0)
    height, width = PHOTOGRAPH
    for part, count in (("train", CLASSES), ("test", test)):
        for i in range(count):
            coarse = Image.fromarray(stream.integers(0, 256, (height // 15, width // 15, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
            grain = stream.normal(0, 6, (height, width, 1)).astype(np.int16)
            path = folder / part / f"class_{i % CLASSES}" / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def photo_entry(folder: Path) -> Entry:
    """The photographs as a dataset of the catalog."""
    return Entry(name=PHOTOS, title="Photographs", layout="folders", root=str(folder))


def land_entry(images: int = 2) -> Entry:
    """A dataset of the embedded world with so many training images of a class."""
    return Entry.model_validate(
        {"name": "land", "title": "Land", "layout": "embedded", "per_class": {"train": images, "test": 1}}
    )


def prepare(results: Path, architecture: str, entry: Entry, images: int = 1) -> Path:
    """Make results/<experiment> of one dataset up to training: so many images of every class, base to new.

    Args:
        architecture: as the configuration's; ``quick`` is ViT with few and narrow blocks.
    """
    if architecture == "quick":
        file = results / "quick.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(QUICK))
        architecture = str(file)
    pretrained = "shipped" if architecture == "embedded" else "random"
    make_backbone("benchmark", architecture, pretrained, results / "backbone.json")
    manifest = read_manifest(make_manifest(entry, (results / paths.manifest(entry.name)).parent))
    clip = load_backbone(results / "backbone.json")
    tokenizer = load_tokenizer(results / "backbone.json")
    text = results / paths.text_features(entry.name, "single")
    make_text_features(clip, tokenizer, manifest.class_names, ["a photo of a {}."], entry.template, text)
    options = {"imbalance_ratio": 1.0, "n_max": images, "seed": 1, "class_order": "label"}
    split = results / paths.split("base_to_new", entry.name, 1.0, 1)
    write_split(split, *make_split(manifest, protocol="base_to_new", **options))  # type: ignore[arg-type]
    return results


def vit(quick: bool) -> str:
    """The architecture that is measured."""
    return "quick" if quick else ARCHITECTURE


def inputs(results: Path, dataset: str, depth: int, threads: int) -> TrainInputs:
    """An epoch of IVLP."""
    hyperparameters = {"epochs": 1, "batch_size": 4, "depth_text": depth, "depth_vision": depth}
    return TrainInputs(
        method="ivlp",
        hyperparameters=hyperparameters,
        seed=1,
        backbone=results / "backbone.json",
        manifest=results / paths.manifest(dataset),
        split=results / paths.split("base_to_new", dataset, 1.0, 1),
        text_features=results / paths.text_features(dataset, "single"),
        augmentation="none",
        device="cpu",
        precision="float32",
        threads=threads,
    )


def trained(results: Path, dataset: str, depth: int, threads: int) -> Path:
    """Train for one step; return the run's folder."""
    run = results / "runs/run"
    train(inputs(results, dataset, depth, threads), run, lambda _: None)
    return run
