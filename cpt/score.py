"""Scoring: predictions of a run -> metrics. Needs no model and no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cpt.data.classes import GROUPS, head_medium_tail
from cpt.data.split import Split, read_split
from cpt.files import column, read_json, read_parquet, write_parquet
from cpt.metrics import accuracy as m
from cpt.paths import COUNTS, METRICS, PREDICTIONS, RUN

ORDER = [("target", "ascending"), ("epoch", "ascending"), ("subset", "ascending"), ("metric", "ascending")]


def score(run: Path, split: Path) -> None:
    """Write metrics.parquet and counts.parquet of a run.

    Args:
        run: folder with run.json and predictions.parquet.
        split: the run's training split; head, medium and tail are thirds of its class ranking.
    """
    record = read_json(run / "run.json", RUN)
    predictions, _ = read_parquet(run / "predictions.parquet", PREDICTIONS)
    training = read_split(split)
    keys = predictions.select(["target", "subset", "epoch"])
    rows: list[dict[str, Any]] = []
    counts: list[pa.Table] = []
    for key in keys.group_by(["target", "subset", "epoch"]).aggregate([]).to_pylist():
        chosen = predictions.filter(_equal(keys, key))
        ranked = training if key["target"] == record["dataset"] and key["subset"] != "new" else None
        rows += [{**key, **row} for row in measure(chosen, ranked)]
        if key["epoch"] is None:
            counts.append(count(chosen, ranked, key["target"], key["subset"]))
    rows += _halves(rows)
    table = pa.Table.from_pylist(
        rows,
        schema=pa.schema(
            {
                "target": pa.string(),
                "subset": pa.string(),
                "epoch": pa.int64(),
                "metric": pa.string(),
                "value": pa.float64(),
                "unit": pa.string(),
                "images": pa.int64(),
            }
        ),
    )
    by_target = [("target", "ascending"), ("subset", "ascending"), ("by", "ascending"), ("index", "ascending")]
    write_parquet(run / "counts.parquet", pa.concat_tables(counts).sort_by(by_target), COUNTS)
    write_parquet(run / "metrics.parquet", table.sort_by(ORDER), METRICS)


def measure(predictions: pa.Table, training: Split | None) -> list[dict[str, Any]]:
    """Return the metrics of one target and subset.

    Args:
        predictions: rows of predictions.parquet.
        training: the split, when the classes are the trained ones: gives head, medium and tail.
    """
    labels, top, confidence = _first(predictions)
    percent: dict[str, float | None] = {
        "accuracy": m.accuracy(labels, top),
        "macro_accuracy": m.macro_accuracy(labels, top),
        "calibration_error": m.calibration_error(confidence, labels == top),
    }
    if training is not None:
        groups = head_medium_tail(training.ranks)
        for group in GROUPS:
            percent[f"{group}_accuracy"] = m.group_accuracy(labels, top, np.flatnonzero(groups == group))
    count = len(labels)
    rows = [
        {"metric": name, "value": value, "unit": "percent", "images": count}
        for name, value in percent.items()
        if value is not None
    ]
    loss = m.log_loss(column(predictions, "true_score"))
    return [*rows, {"metric": "log_loss", "value": loss, "unit": "nats", "images": count}]


def count(predictions: pa.Table, training: Split | None, target: str, subset: str) -> pa.Table:
    """Return how many images of each class, and in each bin of confidence, were right.

    Args:
        predictions: rows of one target and subset.
        training: the split, when the classes are the trained ones: gives training images and groups.
        target: name of the dataset.
        subset: ``base``, ``new`` or ``all``.
    """
    labels, top, confidence = _first(predictions)
    parts = []
    for by, index in (("class", labels), ("confidence", m.bins(confidence))):
        found, place = np.unique(index, return_inverse=True)
        images = np.bincount(place)
        train_images, groups = [None] * len(found), [None] * len(found)
        if training is not None and by == "class":
            train_images = training.counts[found].tolist()
            groups = head_medium_tail(training.ranks)[found].tolist()
        parts.append(
            {
                "target": pa.array([target] * len(found)),
                "subset": pa.array([subset] * len(found)),
                "by": pa.array([by] * len(found)),
                "index": pa.array(found, pa.int64()),
                "images": pa.array(images, pa.int64()),
                "correct": pa.array(np.bincount(place, labels == top).astype(np.int64)),
                "confidence": pa.array(np.bincount(place, confidence) / images),
                "train_images": pa.array(train_images, pa.int64()),
                "group": pa.array(groups, pa.string()),
            }
        )
    return pa.concat_tables([pa.table(part) for part in parts])


def _first(predictions: pa.Table) -> tuple[NDArray, NDArray, NDArray]:
    """Labels, first predicted labels and their probabilities, (N,) each."""
    first = pa.table({name: pc.list_element(predictions[name], 0) for name in ("top_labels", "top_scores")})
    return (
        column(predictions, "label"),
        column(first, "top_labels"),
        column(first, "top_scores").astype(np.float64),
    )


def _halves(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Harmonic mean of base and new accuracy, per target and epoch that has both."""
    found = {(r["target"], r["epoch"], r["subset"]): r for r in rows if r["metric"] == "accuracy"}
    return [
        {
            "target": target,
            "subset": "base+new",
            "epoch": epoch,
            "metric": "harmonic_mean",
            "value": m.harmonic_mean(base["value"], found[target, epoch, "new"]["value"]),
            "unit": "percent",
            "images": base["images"] + found[target, epoch, "new"]["images"],
        }
        for (target, epoch, subset), base in found.items()
        if subset == "base" and (target, epoch, "new") in found
    ]


def _equal(keys: pa.Table, key: dict[str, Any]) -> pa.ChunkedArray:
    mask = pc.and_(pc.equal(keys["target"], key["target"]), pc.equal(keys["subset"], key["subset"]))
    epoch = key["epoch"]
    return pc.and_(
        mask, pc.is_null(keys["epoch"]) if epoch is None else pc.fill_null(pc.equal(keys["epoch"], epoch), False)
    )
