"""A small invented results folder with numbers that can be worked out by hand, for the tests of the report.

Every value is ``METHODS + DATASETS + RATIOS + SEEDS``, so a mean over seeds 1-3 is the value of seed 2 and the sample
standard deviation is 1. NPT has no run on ``scripts`` and lacks seed 3 on ``flowers`` at ratio 0.06.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cpt.files.paths import COUNTS, CURVES, GRID, RUNS, TEXT_FEATURES
from cpt.files.stage_files import write_json, write_parquet, write_tensors

METHODS = {"zeroshot": 46.0, "ivlp": 51.0, "cpt": 53.0, "cptsum": 50.0, "npt": 52.0}
DATASETS = {"world": 10.0, "flowers": 8.0, "scripts": -6.0, "world_r": -2.0, "world_a": -12.0}
RATIOS = {1.0: 4.0, 0.25: 2.0, 0.06: 0.0}
SEEDS = {1: -1.0, 2: 0.0, 3: 1.0}
OFFSETS = {"harmonic_mean": 0.0, "base": 3.0, "new": -2.5, "all": 1.0}
TITLES = {
    "world": ("World", "ImageNet"),
    "flowers": ("Flowers", "Flowers102"),
    "scripts": ("<script>alert(1)</script>", "A & B_C"),
    "world_r": ("World R", "ImageNet-R"),
    "world_a": ("World A", None),
}
ROWS = {
    "zeroshot": ("Zero-shot", None),
    "ivlp": ("IVLP", None),
    "npt": ("NPT", "reconstruction"),
    "cptsum": ("CPT", "as printed"),
    "cpt": ("CPT", None),
}
KINDS = ("tulip", "rose", "lily", "daisy")
CLASSES = tuple(f"{color} {kind}" for color in ("red", "blue", "white") for kind in KINDS)
TRAINED = len(CLASSES) - 2
MEASURED = ("base", "tail", "tail_as_head", "ece_base", "effective_rank")
WICKED = "<img src=x onerror=alert(1)> & </script>"
EPOCHS = 6
TABLES = ["table1", "table2", "table2b", "table3", "table4", "table5", "table6"]
FIGURES = [f"figure{number}" for number in range(1, 9)]


def value(method: str, dataset: str, ratio: float, seed: int, what: str = "harmonic_mean") -> float:
    """Return the invented percentage; an untrained method knows neither ratio nor seed."""
    tail = 0.0 if method == "zeroshot" else RATIOS[ratio] + SEEDS[seed]
    return METHODS[method] + DATASETS[dataset] + tail + OFFSETS[what]


def write_results(folder: Path) -> tuple[Path, Path]:
    """Write grid.json, runs.parquet and the files of single runs into ``folder``; return the first two paths."""
    runs: dict[str, dict] = {}
    exhibits = {**_tables(runs), **_figures(runs)}
    grid = {
        "schema": GRID,
        "experiment": "invented",
        "backbone": "tiny_clip",
        "printed": False,
        "class_groups": {"head": 1.0, "medium": 1.0, "tail": 1.0},
        "runs": [{key: entry[key] for key in entry if key != "x"} for entry in runs.values()],
        "methods": {method: _facts(method) for method in METHODS},
        "datasets": {
            name: {"title": title, "counterpart": other, "layout": "embedded", "derived_split": False}
            for name, (title, other) in TITLES.items()
        },
        "exhibits": exhibits,
    }
    write_json(folder / "grid.json", grid)
    rows = [row for entry in runs.values() if not _missing(entry) for row in _metrics(entry)]
    write_parquet(folder / "runs.parquet", pa.Table.from_pylist(rows), RUNS, experiment="invented")
    finished = [entry for entry in runs.values() if not _missing(entry)]
    write_parquet(folder / "costs.parquet", pa.Table.from_pylist(list(map(_cost, finished))), "cpt.costs/2")
    counts = [row for entry in finished for row in _counts(entry)]
    write_parquet(folder / "counts.parquet", pa.Table.from_pylist(counts, schema=COUNTED), COUNTS)
    curves = [row for entry in finished for row in _curves(entry)]
    write_parquet(folder / "curves.parquet", pa.Table.from_pylist(curves), CURVES)
    for dataset in DATASETS:
        names = {"classes": [*CLASSES[:-1], WICKED] if dataset == "scripts" else list(CLASSES)}
        features = {"features": torch.zeros(len(CLASSES), 1)}
        write_tensors(folder / f"features/{dataset}/text-ensemble.safetensors", features, TEXT_FEATURES, **names)
    for entry in runs.values():
        _write_run(folder, entry)
    return folder / "grid.json", folder / "runs.parquet"


def changed(made: Path, folder: Path, **changes: Any) -> Path:
    """Copy results into ``folder`` with other fields of the grid; return ``folder``."""
    shutil.copytree(made, folder)
    write_json(folder / "grid.json", json.loads((made / "grid.json").read_text()) | changes)
    return folder


# ---- the grid ----------------------------------------------------------------------------------


def _tables(runs: dict[str, dict]) -> dict[str, dict]:
    b2n, transfer = ("world", "flowers", "scripts"), ("flowers", "world", "scripts")
    shifts = ("world", "world_r", "world_a")
    components = ("ivlp", "cptsum", "cpt")
    each = list(ROWS)
    few = [0.25, 0.06]
    return {
        "table1": _table(runs, "table1", "tasks", components, few, base_to_new=b2n, cross_dataset=transfer,
                         domain_generalization=shifts),
        "table2": _table(runs, "table2", "datasets", each, list(RATIOS), base_to_new=b2n),
        "table2b": _table(runs, "table2b", "base_new", each, few, base_to_new=b2n),
        "table3": _table(runs, "table3", "datasets", each, list(RATIOS), cross_dataset=transfer),
        "table4": _table(runs, "table4", "datasets", each, list(RATIOS), domain_generalization=shifts),
        "table5": _table(runs, "table5", "clusterings", ("cpt", "cptsum"), few, base_to_new=("world",)),
        "table6": _table(runs, "table6", "measures", each, [0.06], base_to_new=b2n) | {"measures": list(MEASURED)},
    }  # fmt: skip


def _table(runs, name, layout, methods, ratios, **tasks) -> dict:
    cells = [
        _cell(runs, method, task, dataset, ratio)
        for method in methods
        for task, datasets in tasks.items()
        for dataset in datasets
        for ratio in ratios
    ]
    return {
        **_exhibit(name, "table", methods, ratios, cells),
        "layout": layout,
        "measures": [],
        "reference": "cpt" if "cpt" in methods else None,
        "tasks": list(tasks),
    }


def _figures(runs: dict[str, dict]) -> dict[str, dict]:
    def cells(methods, parameter=None, xs=(None,), datasets=("flowers",)):
        return [
            _cell(runs, method, "base_to_new", dataset, 0.06, parameter, x)
            for method in methods
            for x in xs
            for dataset in datasets
        ]

    weights = (0.0, 0.05, 0.125, 0.25, 0.5, 1.0)
    three = ("zeroshot", "cptsum", "cpt")
    four = ("npt", "ivlp", "cptsum", "cpt")
    swept = ("etf_weight", "compactness_weight", "anchor_weight")
    both = ("flowers", "world")
    drawn = {
        "figure1": ("similarity", three, cells(three) + cells(three[1:], "epochs")),
        "figure2": ("method", ("cpt",), cells(("cpt",))),
        "figure3": ("sweep", ("cpt",), [cell for name in swept for cell in cells(("cpt",), name, weights)]),
        "figure4": ("violin", four, cells(four, datasets=both)),
        "figure5": ("sweep", ("cpt",), cells(("cpt",), "classes_per_cluster", (2, 4, 8, 14), both)),
        "figure6": ("collapse", four, cells(four, datasets=both)),
        "figure7": ("reliability", three, cells(three, datasets=both)),
        "figure8": ("cost", three, cells(three, datasets=both)),
    }
    exhibits = {name: _exhibit(name, kind, methods, [0.06], found) for name, (kind, methods, found) in drawn.items()}
    exhibits["figure3"]["defaults"] = {"etf_weight": 0.25, "compactness_weight": 0.125, "anchor_weight": 0.1}
    exhibits["figure3"]["labels"] = {"etf_weight": "λ_ETF"}
    exhibits["figure5"]["defaults"] = {"classes_per_cluster": 4}
    exhibits["figure6"]["measures"] = ["etf_distance", "alignment"]
    return exhibits


def _exhibit(name, kind, methods, ratios, cells) -> dict:
    return {
        "name": name,
        "kind": kind,
        "title": f"An invented {kind} of 100% <b>markup</b>",
        "caption": f"What {name} shows: τ → 0 & a_b.",
        "rows": [{"id": method, "label": ROWS[method][0], "note": ROWS[method][1]} for method in methods],
        "ratios": list(ratios),
        "cells": cells,
    }


def _cell(runs, method, task, dataset, ratio, parameter=None, x=None) -> dict:
    protocol, trained_on = ("base_to_new", dataset) if task == "base_to_new" else ("all_classes", "world")
    names = []
    for seed in (0,) if method == "zeroshot" else SEEDS:
        of_ratio = 1.0 if method == "zeroshot" else ratio
        key = method if x is None else f"{method}-{parameter}-{x:g}"
        name = f"{protocol}/{trained_on}/r{of_ratio:g}/{key}/s{seed}"
        measured = f"clusters/{protocol}/{trained_on}/k/s{seed}.parquet"
        clusters = measured if method.startswith("cpt") else None
        entry = runs.setdefault(name, {
            "run": name, "protocol": protocol, "dataset": trained_on, "imbalance_ratio": of_ratio, "method": method,
            "key": key, "seed": seed, "clusters": clusters, "measured_clusters": measured, "start": None, "targets": [],
            "text_features": f"features/{trained_on}/text-ensemble.safetensors", "x": x,
        })  # fmt: skip
        for subset in ("base", "new") if task == "base_to_new" else ("all",):
            if [dataset, subset] not in entry["targets"]:
                entry["targets"].append([dataset, subset])
        names.append(name)
    return {"row": method, "task": task, "dataset": dataset, "ratio": ratio, "source": dataset == trained_on,
            "parameter": parameter, "x": x, "runs": names}  # fmt: skip


# ---- the numbers -------------------------------------------------------------------------------


def _missing(entry: dict) -> bool:
    if entry["method"] != "npt" or entry["imbalance_ratio"] != 0.06:
        return False
    return entry["dataset"] == "scripts" or (entry["dataset"] == "flowers" and entry["seed"] == 3)


def _hyperparameters(method: str) -> dict:
    if method == "zeroshot":
        return {"templates": "dataset"}
    trained = {"epochs": 12, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.0025, "depth_text": 3}
    return {"templates": "single", **trained, "tetf_reading": "pairs", "snapshots": False}


def _facts(method: str) -> dict:
    """A method's facts as ``cpt.methods.base.describe`` gives them, with defaults from all of its sources."""
    described = {
        "templates": ("template set", "a repository", "dataset" if method == "zeroshot" else "single"),
        "epochs": ("passes", "a paper", 12),
        "batch_size": ("images per step", "a config", 4),
        "optimizer": ("optimizer", "a paper", "sgd"),
        "learning_rate": ("peak", "a paper", 0.0025),
        "depth_text": ("prompted blocks", "another config", 9),
        "tetf_reading": ("how Eq. 9 is read", "ours", "pairs"),
        "snapshots": ("keep", "switch", False),
    }
    return {
        "title": ROWS[method][0] + (" as printed" if method == "cptsum" else ""),
        "summary": "",
        "source": "A & B 2026",
        "reconstruction": method == "npt",
        "protocol_defaults": {"base_to_new": {"depth_text": 3}},
        "dataset_defaults": {},
        "hyperparameters": {
            name: {"description": about, "source": source, "default": default}
            for name, (about, source, default) in described.items()
        },
    }


def _cost(entry: dict) -> dict:
    """Seconds are 3, 4 and 8 for the seeds 1 to 3."""
    trained = entry["method"] != "zeroshot"
    per_step = {"texts": 15.0, "frozen_texts": 0.0, "images": 16.0, "frozen_images": 0.0}
    return {
        "run": entry["run"],
        "seconds": (0.5, 3.0, 4.0, 8.0)[entry["seed"]],
        "peak_memory_mb": 700.0,
        "learnable_parameters": 1664 if trained else 0,
        "steps": 100 if trained else 0,
        **{f"{kind}_per_step": number if trained else 0.0 for kind, number in per_step.items()},
        "augmentation": "none",
        "text_knowledge": "50 descriptions per class from the file x.json" if entry["method"] == "ivlp" else "none",
        "device": "cpu",
    }


COUNTED = pa.schema(
    [(name, pa.string()) for name in ("run", "target", "subset", "by", "class_name")]
    + [(name, pa.int64()) for name in ("index", "images", "correct", "train_images")]
    + [("confidence", pa.float64()), ("group", pa.string())]
)


def _counts(entry: dict) -> list[dict]:
    """Class k of 50 images has 10 + k right ones, one more for every seed; two bins of confidence."""
    rows = []
    for target, subset in entry["targets"]:
        where = {"run": entry["run"], "target": target, "subset": subset}
        count = len(CLASSES) // (1 if subset == "all" else 2)
        trained = target == entry["dataset"] and subset != "new"
        for k in range(count):
            rows.append({**where, "by": "class", "index": k, "images": 50, "correct": 10 + k + entry["seed"],
                         "train_images": 16 - k if trained else None, "confidence": 0.5,
                         "group": ("head", "medium", "tail")[3 * k // count] if trained else None})  # fmt: skip
        for index, images, correct, confidence in ((7, 100, 40, 0.5), (14, 200, 190, 0.96)):
            rows.append({**where, "by": "confidence", "index": index, "images": images, "correct": correct,
                         "confidence": confidence})  # fmt: skip
    return rows


def _curves(entry: dict) -> list[dict]:
    epochs = range(1, EPOCHS + 1) if entry["method"] != "zeroshot" else ()
    measures = {
        "loss": lambda epoch: 2.0 / epoch + 0.1 * entry["seed"],
        "etf_distance": lambda epoch: 0.9 - 0.05 * epoch,
    }
    return [
        {"run": entry["run"], "epoch": epoch, "measure": name, "value": of(epoch)}
        for name, of in measures.items()
        for epoch in epochs
    ]


def _metrics(entry: dict) -> list[dict]:
    identity = {key: entry[key] for key in ("protocol", "dataset", "imbalance_ratio", "method", "key", "seed", "run")}
    hyperparameters = json.dumps(_hyperparameters(entry["method"]))
    rows = []
    for target, subset in entry["targets"]:
        measured = [(subset, "accuracy", subset)]
        if subset == "base":
            measured.append(("base+new", "harmonic_mean", "harmonic_mean"))
        for where, metric, what in measured:
            if subset == "base" and metric == "harmonic_mean":
                rows += _measures(entry, identity, target)
            number = value(entry["method"], target, entry["imbalance_ratio"], entry["seed"], what)
            number += -2 * (entry["x"] - 0.25) ** 2 if entry["x"] is not None and entry["x"] <= 1 else 0.0
            rows.append({"experiment": "invented", **identity, "hyperparameters": hyperparameters,
                         "target": target, "subset": where, "epoch": None, "metric": metric, "value": number,
                         "unit": "percent", "images": 600})  # fmt: skip
    return rows


def _measures(entry: dict, identity: dict, target: str) -> list[dict]:
    """The tail is 20 points below base; no confusion on world, no text features for NPT."""
    base = value(entry["method"], target, entry["imbalance_ratio"], entry["seed"], "base")
    found = {"tail_accuracy": base - 20, "calibration_error": 4.0 + entry["seed"]}
    if target != "world":
        found["tail_as_head"] = 12.5
    if entry["method"] != "npt":
        found["effective_rank"] = 3.25
    return [
        {"experiment": "invented", **identity, "hyperparameters": json.dumps(_hyperparameters(entry["method"])),
         "target": target, "subset": "base", "epoch": None, "metric": metric, "value": number,
         "unit": "1" if metric == "effective_rank" else "percent", "images": 600}
        for metric, number in found.items()
    ]  # fmt: skip


def _write_run(folder: Path, entry: dict) -> None:
    """Write what figures 1 and 2 read of one run on flowers: features, clusters, tuned features, snapshots."""
    if (entry["dataset"], entry["x"]) != ("flowers", None) or entry["protocol"] != "base_to_new":
        return
    random = np.random.default_rng(7)
    colors, kinds = random.normal(size=(3, 16)), random.normal(size=(4, 16))
    frozen = np.stack([2 * colors[i // 4] + kinds[i % 4] for i in range(len(CLASSES))]) + 1.0
    centered = frozen - frozen.mean(axis=0)
    share = {"zeroshot": 0.0, "cpt": 0.8}.get(entry["method"], 0.4)
    tuned = torch.tensor(frozen - share * (frozen - centered))[:TRAINED]
    write_tensors(folder / entry["text_features"], {"features": torch.tensor(frozen, dtype=torch.float32)},
                  "cpt.text-features/4", classes=list(CLASSES))  # fmt: skip
    run = folder / "runs" / entry["run"]
    normalized = torch.nn.functional.normalize(tuned, dim=1).float()
    write_tensors(run / "classifier.safetensors", {"flowers/base": normalized}, "cpt.classifier/3")
    if entry["clusters"]:
        clusters = {
            "label": range(TRAINED),
            "class_name": CLASSES[:TRAINED],
            "cluster": [i // 4 for i in range(TRAINED)],
        }
        table = pa.table({name: list(column) for name, column in clusters.items()})
        write_parquet(folder / entry["clusters"], table, "cpt.clusters/1")
    final = value(entry["method"], "flowers", entry["imbalance_ratio"], entry["seed"])
    snapshots = [
        {"target": "flowers", "subset": "base+new", "epoch": epoch, "metric": "harmonic_mean",
         "value": final - 2.0 * (EPOCHS - epoch), "unit": "percent", "images": 600}
        for epoch in range(1, EPOCHS + 1)
    ]  # fmt: skip
    write_parquet(run / "metrics.parquet", pa.Table.from_pylist(snapshots), "cpt.metrics/2")
