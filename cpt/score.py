"""Scoring: predictions of a run -> metrics. Needs no model and no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cpt.data.classes import GROUPS, head_medium_tail
from cpt.data.split import Split, read_split
from cpt.files import column, read_json, read_parquet, write_parquet
from cpt.metrics import accuracy as m
from cpt.paths import METRICS, PREDICTIONS, RUN

ORDER = [("target", "ascending"), ("epoch", "ascending"), ("subset", "ascending"), ("metric", "ascending")]


def score(run: Path, split: Path) -> None:
    """Write metrics.parquet of a run.

    Args:
        run: folder with run.json and predictions.parquet.
        split: the run's training split; head, medium and tail are thirds of its class ranking.
    """
    record = read_json(run / "run.json", RUN)
    predictions, _ = read_parquet(run / "predictions.parquet", PREDICTIONS)
    training = read_split(split)
    keys = predictions.select(["target", "subset", "epoch"])
    rows: list[dict[str, Any]] = []
    for key in keys.group_by(["target", "subset", "epoch"]).aggregate([]).to_pylist():
        chosen = predictions.filter(_equal(keys, key))
        ranked = training if key["target"] == record["dataset"] and key["subset"] != "new" else None
        rows += [{**key, **row} for row in measure(chosen, ranked)]
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
    write_parquet(run / "metrics.parquet", table.sort_by(ORDER), METRICS)


def measure(predictions: pa.Table, training: Split | None) -> list[dict[str, Any]]:
    """Return the metrics of one target and subset.

    Args:
        predictions: rows of predictions.parquet.
        training: the split, when the classes are the trained ones: gives head, medium and tail.
    """
    labels = column(predictions, "label")
    first = {name: pc.list_element(predictions[name], 0) for name in ("top_labels", "top_scores")}
    top = column(pa.table(first), "top_labels")
    confidence = column(pa.table(first), "top_scores").astype(np.float64)
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
