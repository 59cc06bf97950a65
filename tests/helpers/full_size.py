"""Results of the size of the paper's whole grid with invented numbers, to see whether the page still serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cpt.experiment import config, grid
from cpt.files.paths import COSTS, COUNTS, RUNS, TEXT_FEATURES
from cpt.files.paths import CURVES as CURVES_SCHEMA
from cpt.files.stage_files import canonical_json, write_json, write_parquet, write_tensors, write_text
from cpt.metrics.predictions import BINS, harmonic_mean
from cpt.metrics.reported import CURVES, MEASURES
from cpt.report.drawing import style
from cpt.report.drawing.make import make_figure
from cpt.report.page.make import make_page
from cpt.report.printed.audit import audit
from cpt.report.printed.audit_text import html
from cpt.report.printed.ledger import make_ledger
from cpt.report.printed.published import read_claims, read_published
from cpt.report.tables import make_table

CURVED = ("loss", "gradient_norm", "learning_rate", "loss_cross_entropy", "loss_separation", "loss_consistency",
            "loss_anchor", *CURVES)  # fmt: skip
IMAGES = 50


def write_full_page(project: Path, folder: Path) -> Path:
    """Write results of the paper's grid into ``folder`` and return their page."""
    whole = grid.build(config.load([project / "config/paper.yaml"]), "config/paper.yaml")
    asked = whole.as_json()
    write_json(folder / "grid.json", asked)
    random = np.random.default_rng(0)
    metrics: list[dict[str, Any]] = []
    counts: list[pa.Table] = []
    curves: list[pa.Table] = []
    costs: list[dict[str, Any]] = []
    for run in whole.runs.values():
        identity = {
            "experiment": asked["experiment"], "backbone": asked["backbone"], "protocol": run.protocol,
            "dataset": run.dataset, "imbalance_ratio": run.ratio, "method": run.method, "key": run.key,
            "hyperparameters": canonical_json(run.hyperparameters.model_dump()), "seed": run.seed, "run": run.id,
            "derived_split": False,
        }  # fmt: skip
        own: list[dict[str, Any]] = []
        for target, subset in sorted(run.targets):
            table = _counts(run, target, subset, whole.catalog[target].expected.classes, random)
            counts.append(table)
            own += _metrics(target, subset, table)
        metrics += [{**identity, **row} for row in [*own, *_halves(own)]]
        curves.append(_curves(run, random))
        costs.append(_cost(run, random))
    write_parquet(folder / "runs.parquet", pa.Table.from_pylist(metrics), RUNS)
    write_parquet(folder / "costs.parquet", pa.Table.from_pylist(costs), COSTS)
    write_parquet(folder / "counts.parquet", pa.concat_tables(counts), COUNTS)
    write_parquet(folder / "curves.parquet", pa.concat_tables(curves), CURVES_SCHEMA)
    for dataset in asked["datasets"]:
        names = [f"class {i} of {dataset}" for i in range(whole.catalog[dataset].expected.classes)]
        templates = {run.text_features.rpartition("/")[2] for run in whole.runs.values()}
        for file in templates:
            write_tensors(
                folder / "features" / dataset / file, {"features": torch.zeros(1)}, TEXT_FEATURES, classes=names
            )
    for name, exhibit in asked["exhibits"].items():
        if exhibit["kind"] == "table":
            make_table(folder / "grid.json", folder / "runs.parquet", name, folder / "tables")
        elif exhibit["kind"] not in ("similarity", "method"):
            make_figure(folder / "grid.json", folder / "runs.parquet", name, folder / "figures")
        else:
            _matrix(folder / "figures", name, random)
    page = folder / "report/index.html"
    published = project / "config/published.csv"
    make_ledger(folder, published)
    sections = audit(read_published(published), read_claims(project / "config/published_claims.yaml"))
    write_text(page.with_name("audit.html"), html(sections))
    make_page(folder)
    return page


def _counts(run, target: str, subset: str, classes: int, random: np.random.Generator) -> pa.Table:
    base = (classes + 1) // 2
    count = {"base": base, "new": classes - base, "all": classes}[subset]
    correct = random.binomial(IMAGES, random.uniform(0.3, 0.95, count))
    trained = target == run.dataset and subset != "new"
    shares = random.multinomial(count * IMAGES, np.full(BINS, 1 / BINS))
    right = random.binomial(shares, np.linspace(0.05, 0.95, BINS))
    total = count + BINS
    return pa.table(
        {
            "run": pa.array([run.id] * total),
            "target": pa.array([target] * total),
            "subset": pa.array([subset] * total),
            "by": pa.array(["class"] * count + ["confidence"] * BINS),
            "index": pa.array([*range(count), *range(BINS)], pa.int64()),
            "images": pa.array([IMAGES] * count + shares.tolist(), pa.int64()),
            "correct": pa.array(np.concatenate([correct, right]), pa.int64()),
            "confidence": pa.array(np.concatenate([np.full(count, 0.5), (np.arange(BINS) + 0.5) / BINS])),
            "train_images": pa.array(
                [max(1, round(16 * run.ratio ** (k / count))) if trained else None for k in range(count)]
                + [None] * BINS,
                pa.int64(),
            ),
            "group": pa.array(
                [("head", "medium", "tail")[3 * k // count] if trained else None for k in range(count)] + [None] * BINS,
                pa.string(),
            ),
        }
    )


def _metrics(target: str, subset: str, table: pa.Table) -> list[dict[str, Any]]:
    correct, group = (np.array(table[name].to_pylist()[:-BINS]) for name in ("correct", "group"))
    found = {"accuracy": correct.mean(), "macro_accuracy": correct.mean(), "calibration_error": 2.5}
    if group[0]:
        found |= {f"{third}_accuracy": correct[group == third].mean() for third in ("head", "medium", "tail")}
        found |= {m.metric: 0.5 for m in MEASURES.values() if m.subset == "base" and m.metric not in found}
    return [
        {"target": target, "subset": subset, "epoch": None, "metric": metric, "value": float(100 * value / IMAGES),
         "unit": "percent", "images": len(correct) * IMAGES}
        for metric, value in found.items()
    ]  # fmt: skip


def _halves(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    base, new = (
        [row for row in rows if row["subset"] == half and row["metric"] == "accuracy"] for half in ("base", "new")
    )
    return [
        {**b, "subset": "base+new", "metric": "harmonic_mean", "value": harmonic_mean(b["value"], n["value"])}
        for b, n in zip(base, new, strict=True)
    ]


def _curves(run, random: np.random.Generator) -> pa.Table:
    epochs = getattr(run.hyperparameters, "epochs", 0)
    names = CURVED if epochs else ()
    return pa.table(
        {
            "run": pa.array([run.id] * epochs * len(names), pa.string()),
            "epoch": pa.array(list(range(1, epochs + 1)) * len(names), pa.int64()),
            "measure": pa.array([name for name in names for _ in range(epochs)], pa.string()),
            "value": pa.array(random.uniform(0, 2, epochs * len(names))),
        }
    )


def _cost(run, random: np.random.Generator) -> dict[str, Any]:
    return {
        "run": run.id, "seconds": float(random.uniform(60, 3000)), "peak_memory_mb": 9000.0,
        "learnable_parameters": 36864, "steps": 1000, "texts_per_step": 500.0, "frozen_texts_per_step": 0.0,
        "images_per_step": 4.0, "frozen_images_per_step": 0.0, "augmentation": "rrc_flip", "text_knowledge": "none",
        "device": "cuda",
    }  # fmt: skip


def _matrix(folder: Path, name: str, random: np.random.Generator) -> None:
    """A figure as heavy as 500 classes' cosines, three times."""
    with style.house_style():
        figure = style.new_figure(style.FULL_WIDTH, 3)
        for axes in figure.subplots(1, 3):
            cosines = random.normal(0.5, 0.08, size=(500, 500))
            axes.imshow(cosines + cosines.T, interpolation="none", vmin=0.2, vmax=2)
        style.save(style.Drawing(figure, ["nothing"], []), folder, name, "Invented.")
