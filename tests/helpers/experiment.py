"""Training and prediction on the experiment that the fixture ``results`` makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cpt.training.train import TrainInputs

SMALL: dict[str, dict[str, Any]] = {
    "cocoop": {"reduction": 2},
    "coprompt": {"depth": 2},
    "cpt": {"depth_text": 2, "depth_vision": 2},
    "dekg_tcp": {"block": 2},
    "lamp": {"first_block": 1, "last_block": 2},
    "lamp_abstract": {"last_block": 2},
    "mma": {"first_block": 1, "last_block": 2},
    "mmrl": {"first_block": 1, "last_block": 2},
    "npt": {"depth": 2},
    "maple": {"depth": 2},
    "ivlp": {"depth_text": 2, "depth_vision": 2},
    "promptsrc": {"depth_text": 2, "depth_vision": 2},
    "tcp": {"block": 2},
}
"""Settings for its CLIP of three and four blocks."""

COMMON = {"epochs": 2, "batch_size": 16, "templates": "single"}


def train_inputs(results: Path, method: str, ratio: str = "r1", **changes: Any) -> TrainInputs:
    """What ``cpt train`` gets for the base classes of land.

    Args:
        changes: inputs; ``hyperparameters`` are added to small ones.
    """
    given = COMMON | SMALL.get(method, {}) | changes.pop("hyperparameters", {})
    values = {
        "method": method,
        "hyperparameters": given,
        "seed": 1,
        "backbone": results / "backbone.json",
        "manifest": results / "data/land/manifest.parquet",
        "split": results / f"splits/base_to_new/land/{ratio}/s1.parquet",
        "text_features": results / "features/land/text-single.safetensors",
        "augmentation": "none",
        "device": "cpu",
        "checkpoint_interval": 0.0,
    }
    return TrainInputs(**(values | changes))


def linked(results: Path, folder: Path, *, features: bool = True) -> Path:
    """A folder of an experiment whose inputs are those of ``results``; without ``features`` images are encoded."""
    for name in ("backbone.json", "backbone.safetensors", "data"):
        (folder / name).symlink_to(results / name)
    text = "features/land/text-single.safetensors"
    if features:
        (folder / "features").symlink_to(results / "features")
    else:
        (folder / text).parent.mkdir(parents=True)
        (folder / text).symlink_to(results / text)
    return folder


def train_words(inputs: TrainInputs, output: Path) -> list[str]:
    """The words after ``cpt`` that train what ``inputs`` says."""
    words = ["train", "--output", str(output)]
    for name, value in vars(inputs).items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return words
