"""Half precision against float32: the embedded experiment's runs, trained and tested in each on a CPU.

A GPU rounds alike but sums in another order; ``make gpu-check`` compares losses and gradients there.
``python -m benchmarks.precision`` takes minutes and keeps what it found in docs/results/precision.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cpt.clip.backbone import load_backbone
from cpt.clip.make_backbone import load_tokenizer, make_backbone
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split, write_split
from cpt.evaluation.predict import predict
from cpt.experiment import config, grid
from cpt.experiment.runs import Run
from cpt.features.make_clusters import make_clusters
from cpt.features.text import make_text_features
from cpt.files import paths
from cpt.files.paths import PREDICTIONS
from cpt.files.stage_files import column, read_parquet
from cpt.training.train import TrainInputs, train

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs/results/precision.json"
CONFIGURATION = ROOT / "config/config.yaml"
PRECISIONS = ("float32", "bfloat16", "float16")
DATASETS, METHODS, RATIO = ("flowers", "world"), ("coop", "ivlp", "cpt"), 0.06
SUBSETS = ("base", "new")


def compared(inputs: TrainInputs, results: Path, log: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Train and test a base-to-new run in every precision.

    Args:
        inputs: of the training, for any precision.
        results: folder of the experiment; frozen image features that lie there are of one precision.
        log: gets the jobs' lines.

    Returns:
        By precision: accuracies ``base`` and ``new``, and the predictions that are ``equal`` to float32's, in percent.
    """
    dataset = read_manifest(inputs.manifest).metadata["dataset"]
    predicted: dict[str, np.ndarray] = {}
    found: dict[str, dict[str, float]] = {}
    for precision in PRECISIONS:
        run = results / f"runs/{inputs.method}-{precision}-{dataset}"
        train(replace(inputs, precision=precision), run, log)
        predict(run, results, [(dataset, subset) for subset in SUBSETS], device=inputs.device, log=log)
        table, _ = read_parquet(run / "predictions.parquet", PREDICTIONS)
        predicted[precision] = np.array([best[0] for best in table["top_labels"].to_pylist()])
        right, subset = predicted[precision] == column(table, "label"), column(table, "subset")
        shares = {name: right[subset == name] for name in SUBSETS} | {
            "equal": predicted[precision] == predicted["float32"]
        }
        found[precision] = {name: round(100 * float(share.mean()), 2) for name, share in shares.items()}
    return found


def prepared(resolved: grid.Grid, run: Run, results: Path) -> TrainInputs:
    """Make what a run of the embedded experiment reads, with the functions of its stages."""
    backbone = results / "backbone.json"
    if not backbone.is_file():
        make_backbone("tiny-clip", "embedded", "shipped", backbone)
    entry, text = resolved.catalog[run.dataset], results / run.text_features
    path = results / paths.manifest(run.dataset)
    if not path.is_file():
        make_manifest(entry, path.parent)
        names = read_manifest(path).class_names
        tokenizer = load_tokenizer(backbone)
        make_text_features(load_backbone(backbone), tokenizer, names, ["a photo of a {}."], entry.template, text)
        options = {"imbalance_ratio": run.ratio, "n_max": resolved.config.n_max, "class_order": "label"}
        split = make_split(read_manifest(path), protocol=run.protocol, seed=run.seed, **options)  # type: ignore[arg-type]
        write_split(results / run.split, *split)
    if run.clusters:
        rule = run.clustering
        assert rule is not None
        clusters = results / run.clusters
        make_clusters(text, run.protocol, rule["algorithm"], rule["seed"], clusters, per=rule["classes_per_cluster"])
    return TrainInputs(
        method=run.method,
        hyperparameters=run.hyperparameters.model_dump(),
        seed=run.seed,
        backbone=backbone,
        manifest=path,
        split=results / run.split,
        text_features=text,
        clusters=results / run.clusters if run.clusters else None,
        augmentation=resolved.config.augmentation,
        device="cpu",
    )


def chosen(resolved: grid.Grid, dataset: str, method: str) -> Run:
    """The run of Table 2 with the first seed."""
    cell = next(
        cell
        for cell in resolved.exhibits["table2"]["cells"]
        if (cell["row"], cell["dataset"], cell["ratio"]) == (method, dataset, RATIO)
    )
    return resolved.runs[cell["runs"][0]]


def main(words: list[str] | None = None) -> int:
    """Compare and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=KEPT, help="file of the numbers")
    given = parser.parse_args(words)
    resolved = grid.build(config.load([CONFIGURATION]), str(CONFIGURATION))
    kept: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dataset in DATASETS:
            for method in METHODS:
                inputs = prepared(resolved, chosen(resolved, dataset, method), Path(folder))
                kept.setdefault(dataset, {})[method] = found = compared(inputs, Path(folder), lambda _: None)
                print(dataset, method, json.dumps(found), flush=True)
    given.out.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
