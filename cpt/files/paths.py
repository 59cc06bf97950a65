"""Where the files between stages lie, relative to ``results/<experiment>``, and their schemas (docs/files.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Ratio = float | Literal["natural"]
"""Imbalance ratio τ, or ``natural`` where the training images are all that a dataset has."""
NATURAL: Literal["natural"] = "natural"

GRID = "cpt.grid/5"
TEXT_FEATURES = "cpt.text-features/4"
PROMPTS = "cpt.prompts/1"
HISTORY = "cpt.history/2"
RUN = "cpt.run/3"
PREDICTIONS = "cpt.predictions/2"
CLASSIFIER = "cpt.classifier/3"
METRICS = "cpt.metrics/2"
COUNTS = "cpt.counts/2"
CURVES = "cpt.curves/1"
RUNS = "cpt.runs/2"
COSTS = "cpt.costs/2"
BUNDLE = "cpt.bundle/1"

TRAINED = ("run.json", "prompts.safetensors", "history.parquet")
PREDICTED = ("predictions.parquet", "classifier.safetensors")
SCORED = ("metrics.parquet", "counts.parquet")
"""Files of a stage in a run's folder; the first one says that the stage is done."""
GATHERED = tuple(f"{name}.parquet" for name in ("runs", "costs", "counts", "curves"))
"""What ``cpt aggregate`` writes."""
FIGURE = ("svg", "pdf", "png", "csv", "txt")
"""Suffixes of a figure's files; the first one has the record beside it."""

HISTORY_LINES = ".history.jsonl"
"""Suffix of the history of an unfinished training, beside its checkpoint."""
EVENTS = "CPT_TENSORBOARD"
"""Environment variable that says the same as ``cpt train --tensorboard``, for the trainings of a workflow."""
PARTS = "parts"
"""Folder of what ``cpt aggregate --exhibit`` writes: below it a folder per exhibit, with the files of ``GATHERED``."""

IMAGES = "images"
"""Last part of the name of a target's mean image features in classifier.safetensors."""


def manifest(dataset: str) -> str:
    """Manifest of a dataset."""
    return f"data/{dataset}/manifest.parquet"


def fetched(dataset: str) -> str:
    """Where the files of a dataset came from."""
    return f"data/{dataset}/fetched.json"


def pixels(dataset: str, part: str) -> str:
    """Image cache of one part of a dataset."""
    return f"data/{dataset}/pixels-{part}.npy"


def ratio_text(ratio: Ratio) -> str:
    """Return a ratio as paths, tables and data files have it: ``0.06``, ``natural``."""
    return ratio if isinstance(ratio, str) else f"{ratio:g}"


def ratio_order(ratio: Ratio) -> float:
    """Return what ratios are sorted by: balanced first, ``natural`` last."""
    return 0.0 if isinstance(ratio, str) else -ratio


def split(protocol: str, dataset: str, ratio: Ratio, seed: int) -> str:
    """Training images of the runs that share protocol, dataset, imbalance ratio and seed."""
    return f"splits/{protocol}/{dataset}/r{ratio_text(ratio)}/s{seed}.parquet"


def text_features(dataset: str, templates: str) -> str:
    """Frozen text features of a dataset under a template set."""
    return f"features/{dataset}/text-{templates}.safetensors"


def image_features(dataset: str, part: str) -> str:
    """Frozen image features of one part of a dataset."""
    return f"features/{dataset}/images-{part}.safetensors"


def descriptions(dataset: str, name: str) -> str:
    """Frozen features of class descriptions; ``name`` is the template set, or ``file`` for the dataset's own file."""
    return f"features/{dataset}/descriptions-{name}.safetensors"


def clusters(protocol: str, dataset: str, name: str, seed: int) -> str:
    """Clusters of the trained classes; ``name`` tells algorithm, number rule and template set."""
    return f"clusters/{protocol}/{dataset}/{name}/s{seed}.parquet"


def run(protocol: str, dataset: str, ratio: Ratio, key: str, seed: int) -> str:
    """Identity of a run, which is its folder below ``runs/``."""
    return f"{protocol}/{dataset}/r{ratio_text(ratio)}/{key}/s{seed}"


def run_name(folder: Path) -> str:
    """Name of a run by its folder: with its experiment below ``results/<experiment>/runs``, else the folder's own."""
    experiment, runs, name = str(folder.absolute()).rpartition("/runs/")
    return f"{Path(experiment).name}/{name}" if runs else folder.absolute().name
