"""A small finished experiment, made by the verbs: two datasets, two methods, tables, a figure and the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from cpt.cli.app import app
from cpt.experiment.config import load as load_config
from cpt.experiment.resolved import load
from cpt.files.hashes import digest_of_file
from cpt.files.integrity import SUFFIX, digest
from cpt.files.stage_files import write_json
from tests.helpers.workflow import CATALOG, write_photos

ROOT = Path(__file__).parents[2]
ABSENT = (*(f"table{i}" for i in (1, 3, 4, 5, 6, 7)), *(f"figure{i}" for i in (1, 2, 4, 5, 6, 7, 8)))
CONFIGURATION = {
    "extends": "config/config.yaml",
    "experiment": "slice",
    "catalog": "catalog.yaml",
    "seeds": [1],
    "imbalance_ratios": [0.5],
    "n_max": 4,
    "overrides": [{"set": {"epochs": 1, "batch_size": 16, "templates": "single", "depth_text": 2, "depth_vision": 2}}],
    "variants": {name: {"method": name} for name in ("zeroshot", "cpt")},
    "tasks": {"base_to_new": {"datasets": ["land", "photos"]}, "cross_dataset": None, "domain_generalization": None,
              "few_shot": None},
    "exhibits": {
        "table2": {"variants": ["zeroshot", "cpt"], "ratios": None},
        "figure3": {"ratios": None, "datasets": ["land"],
                    "sweep": {"tetf_weight": [0.25], "cc_weight": None, "rs_weight": None}},
        **dict.fromkeys(ABSENT),
    },
}  # fmt: skip
RESULTS = Path("results/slice")


def cpt(*words: object) -> None:
    app([str(word) for word in words], standalone_mode=False)


def configure(folder: Path) -> None:
    (folder / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    (folder / "slice.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    write_photos(folder)


def make(folder: Path) -> None:
    """Call the verbs on a slice of the embedded experiment, in the order of the stages."""
    shutil.copytree(ROOT / "config", folder / "config")
    configure(folder)
    plan = load(load_config([Path("slice.yaml")]), "slice.yaml", folder / "kept.json")
    backbone = ("--backbone", RESULTS / "backbone.json")
    cpt("grid", "slice.yaml", "--output", RESULTS / "grid.json")
    cpt("backbone", "--output", RESULTS / "backbone.json")
    for name in CATALOG:
        data, features = RESULTS / "data" / name, RESULTS / "features" / name
        manifest = ("--manifest", data / "manifest.parquet")
        cpt("data", "manifest", name, "--catalog", "catalog.yaml", "--output", data)
        cpt("text-features", name, *manifest, *backbone, "--catalog", "catalog.yaml",
            "--output", features / "text-single.safetensors")  # fmt: skip
    cpt("data", "pixels", *manifest, *backbone, "--part", "test", "--output", data / "pixels-test.npy")
    cpt("image-features", *manifest, *backbone, "--part", "test", "--pixels", data / "pixels-test.npy",
        "--output", features / "images-test.safetensors")  # fmt: skip
    for name, run in plan.runs.items():
        folder = RESULTS / "runs" / name
        ratio = run.split.split("/r")[-1].split("/")[0]
        manifest = ("--manifest", RESULTS / "data" / run.dataset / "manifest.parquet")
        split, text = RESULTS / run.split, RESULTS / run.text_features
        cpt("split", *manifest, "--protocol", run.protocol, "--ratio", ratio, "--seed", run.seed, "--output", split)
        inputs = ["--split", split, "--text-features", text]
        assert run.measured_clusters is None, "no table shows what is within clusters"
        if run.clusters:
            source, *options = plan.clusters[run.clusters]
            cpt("clusters", "--text-features", RESULTS / source, *options, "--output", RESULTS / run.clusters)
            inputs += ["--clusters", RESULTS / run.clusters]
        cpt("train", "--method", run.method, "--seed", run.seed, "--hyperparameters", run.hyperparameters, *backbone,
            *manifest, *inputs, "--augmentation", "none", "--device", "cpu", "--output", folder)  # fmt: skip
        targets = [word for target in run.targets for word in ("--target", "/".join(target))]
        cpt("predict", folder, "--results", RESULTS, *targets, "--device", "cpu")
        cpt("score", folder, "--split", split)
    cpt("aggregate", "--grid", RESULTS / "grid.json")
    for table in ("table2", "table2b"):
        cpt("table", table, "--results", RESULTS)
    cpt("figure", "figure3", "--results", RESULTS)
    cpt("page", "--results", RESULTS)


def resealed(folder: Path) -> Path:
    """Write all records of an experiment anew for the files that are there, as somebody who tampers with them would."""
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        record = json.loads(path.read_text())
        for kind in ("outputs", "sources"):
            files = {name: path.parent / name for name in record[kind]}
            record[kind] |= {name: digest_of_file(file) for name, file in files.items() if file.is_file()}
        write_json(path, record | {"digest": digest(record)})
    return folder
