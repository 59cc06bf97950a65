"""Scoring: predictions of a run -> metrics. Needs no model and no GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cpt.data.classes import GROUPS, THIRDS, head_medium_tail, shot_groups
from cpt.data.split import Split, read_split
from cpt.errors import CptError
from cpt.features.clusters import read_clusters
from cpt.files.paths import CLASSIFIER, COUNTS, IMAGES, METRICS, NATURAL, PREDICTIONS, RUN
from cpt.files.stage_files import column, read_json, read_parquet, read_tensors, write_parquet
from cpt.methods.base import registry
from cpt.metrics import predictions as m

if TYPE_CHECKING:
    import torch

_METRICS = pa.schema([
    ("target", pa.string()), ("subset", pa.string()), ("epoch", pa.int64()), ("metric", pa.string()),
    ("value", pa.float64()), ("unit", pa.string()), ("images", pa.int64()),
])  # fmt: skip


@dataclass(frozen=True)
class TrainedClasses:
    """What is known of the K trained classes.

    Attributes:
        counts: (K,) training images.
        groups: (K,) ``head``, ``medium`` or ``tail``; None for an untrained run where every seed has a ranking.
        clusters: (K,) cluster; None unless given.
        shots: (K,) ``many``, ``medium`` or ``few``; None unless the training images are all that there are.
    """

    counts: NDArray
    groups: NDArray | None
    clusters: NDArray | None = None
    shots: NDArray | None = None


def score(
    run: Path, split: Path, clusters: Path | None = None, class_groups: Mapping[str, float] | None = None
) -> pa.Table:
    """Write metrics.parquet and counts.parquet of a run; return the metrics. Arguments and errors: ``scored``."""
    chosen_groups = dict(class_groups or zip(GROUPS, THIRDS, strict=True))
    metrics, counts = scored(run, split, clusters, chosen_groups)
    for file, schema, table in (("counts", COUNTS, counts), ("metrics", METRICS, metrics)):
        write_parquet(run / f"{file}.parquet", table, schema, class_groups=chosen_groups)
    return metrics


def scored(
    run: Path, split: Path, clusters: Path | None, class_groups: Mapping[str, float]
) -> tuple[pa.Table, pa.Table]:
    """Return the metrics and counts of a run; nothing is written.

    Args:
        run: folder with run.json, predictions.parquet and classifier.safetensors.
        split: the run's training split, with its class ranking.
        clusters: clusters of the trained classes, within which confusion and text features are measured.
        class_groups: sizes of head, medium and tail relative to each other.

    Raises:
        CptError: an input is missing or damaged, or the clusters are not of the trained classes.
    """
    record = read_json(run / "run.json", RUN)
    predictions, _ = read_parquet(run / "predictions.parquet", PREDICTIONS)
    classifier, described = read_tensors(run / "classifier.safetensors", CLASSIFIER)
    kind = registry.get(record["method"])
    untrained = not (kind.trains or kind.needs_training_features)
    training = _trained(read_split(split), clusters, class_groups, untrained=untrained)
    keys = predictions.select(["target", "subset", "epoch"])
    rows: list[dict[str, Any]] = []
    counts: list[pa.Table] = []
    for key in keys.group_by(["target", "subset", "epoch"]).aggregate([]).to_pylist():
        chosen = predictions.filter(matching(keys, key))
        own = training if key["target"] == record["dataset"] and key["subset"] != "new" else None
        rows += [{**key, **row} for row in measure(chosen, own)]
        if key["epoch"] is None:
            name = f"{key['target']}/{key['subset']}"
            counts.append(count(chosen, own, key["target"], key["subset"], described["classes"][name]))
            means = classifier[f"{name}/{IMAGES}"]
            images = np.bincount(column(chosen, "label"), minlength=len(means))
            rows += [{**key, **row} for row in collapse(classifier.get(name), means, images, own)]
    metrics = pa.Table.from_pylist(rows + _halves(rows), schema=_METRICS)
    return (
        _sorted(metrics, "target", "epoch", "subset", "metric"),
        _sorted(pa.concat_tables(counts), "target", "subset", "by", "index"),
    )


def _sorted(table: pa.Table, *names: str) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in names])


def _trained(
    split: Split, clusters: Path | None, class_groups: Mapping[str, float], *, untrained: bool
) -> TrainedClasses:
    groups: NDArray | None = head_medium_tail(split.ranks, [class_groups[group] for group in GROUPS])
    if untrained and split.metadata["class_order"] == "random":
        groups = None  # its split's ranking is none of those that the trained runs beside it have
    shots = shot_groups(split.counts) if split.metadata["imbalance_ratio"] == NATURAL else None
    if clusters is None:
        return TrainedClasses(split.counts, groups, shots=shots)
    found = read_clusters(clusters)
    if found.class_names != split.classes:
        raise CptError(f"{clusters}: not of the classes that the split trains; give clusters of the same dataset")
    return TrainedClasses(split.counts, groups, found.labels, shots)


def measure(predictions: pa.Table, training: TrainedClasses | None) -> list[dict[str, Any]]:
    """Return the metrics of one target and subset (``cpt.metrics.predictions.MEASURES``).

    Args:
        predictions: rows of predictions.parquet.
        training: of the classes, when they are the trained ones: gives head, medium and tail, and clusters.
    """
    labels, top, confidence = _first(predictions)
    own = TrainedClasses(np.empty(0), None) if training is None else training
    true_score = column(predictions, "true_score")
    known = m.Predictions(labels, top, confidence, true_score, own.groups, own.clusters, own.shots)
    rows = [(name, measured(known), unit) for name, (unit, measured) in m.MEASURES.items()]
    return [
        {"metric": name, "value": value, "unit": unit, "images": len(labels)}
        for name, value, unit in rows
        if value is not None
    ]


def collapse(
    text: torch.Tensor | None, images: torch.Tensor, counts: NDArray, training: TrainedClasses | None
) -> Iterator[dict[str, Any]]:
    """Return the neural-collapse measures of one target and subset, on its test images.

    Args:
        text: (K, D) text features; None where they depend on the image.
        images: (K, D) mean of every class's unit-norm image features.
        counts: (K,) test images of every class.
        training: of the classes, when they are the trained ones: gives their clusters.
    """
    import torch

    from cpt.metrics import geometry

    clusters = None if training is None or training.clusters is None else torch.from_numpy(training.clusters)
    texts = None if text is None else text.double()
    found = geometry.collapse_measures(texts, images.double(), torch.from_numpy(counts), clusters)
    for name, value in found.items():
        if isfinite(value):
            yield {"metric": name, "value": value, "unit": "1", "images": int(counts.sum())}


def count(
    predictions: pa.Table, training: TrainedClasses | None, target: str, subset: str, names: Sequence[str]
) -> pa.Table:
    """Return how many images of each class, and in each bin of confidence, were right.

    Args:
        predictions: rows of one target and subset.
        training: of the classes, when they are the trained ones: gives training images and groups.
        target: name of the dataset.
        subset: ``base``, ``new`` or ``all``.
        names: of its classes.
    """
    labels, top, confidence = _first(predictions)
    parts = []
    for by, index in (("class", labels), ("confidence", m.bins(confidence))):
        found, place = np.unique(index, return_inverse=True)
        images = np.bincount(place)
        known = training if by == "class" else None
        groups = None if known is None else known.groups
        absent = [None] * len(found)
        columns = {
            "target": pa.array([target] * len(found)),
            "subset": pa.array([subset] * len(found)),
            "by": pa.array([by] * len(found)),
            "index": pa.array(found, pa.int64()),
            "class_name": pa.array([names[i] for i in found] if by == "class" else absent, pa.string()),
            "images": pa.array(images, pa.int64()),
            "correct": pa.array(np.bincount(place, labels == top).astype(np.int64)),
            "confidence": pa.array(np.bincount(place, confidence) / images),
            "train_images": pa.array(absent if known is None else known.counts[found].tolist(), pa.int64()),
            "group": pa.array(absent if groups is None else groups[found].tolist(), pa.string()),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _first(predictions: pa.Table) -> tuple[NDArray, NDArray, NDArray]:
    """Labels, first predicted labels and their probabilities, (N,) each."""
    first = pa.table({name: pc.list_element(predictions[name], 0) for name in ("top_labels", "top_scores")})
    return column(predictions, "label"), column(first, "top_labels"), column(first, "top_scores").astype(np.float64)


def _halves(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Harmonic mean of base and new accuracy, per target and epoch that has both."""
    found = {(r["target"], r["epoch"], r["subset"]): r for r in rows if r["metric"] == "accuracy"}
    pairs = [(base, found.get((*key[:2], "new"))) for key, base in found.items() if key[2] == "base"]
    return [
        base
        | {"subset": "base+new", "metric": "harmonic_mean", "images": base["images"] + new["images"]}
        | {"value": m.harmonic_mean(base["value"], new["value"])}
        for base, new in pairs
        if new
    ]


def matching(keys: pa.Table, key: dict[str, Any]) -> pa.ChunkedArray:
    """Which rows have a key, whose epoch may be null."""
    mask = pc.is_null(keys["epoch"]) if key["epoch"] is None else pc.equal(keys["epoch"], key["epoch"])
    for name in ("target", "subset"):
        mask = pc.and_(mask, pc.equal(keys[name], key[name]))
    return pc.fill_null(mask, False)
