"""Part ``workflow``: two methods on a dataset of the embedded experiment, one seed, by Snakemake, on the device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu.check import ROOT, Check
from cpt.files.paths import RUN, RUNS
from cpt.files.stage_files import read_json, read_parquet

NEEDED = ("Snakefile", "profiles", "rules", "workflow", "config", "envs")
METHODS, DATASET = ("cpt", "coop"), "land"
RECORDED = ("device", "precision", "cuda_graphs", "seconds", "steps", "peak_memory_mb", "reserved_memory_mb")
"""What a row takes from run.json."""


def configuration(device: str, methods: tuple[str, ...]) -> dict[str, Any]:
    """The embedded experiment's Table 2 with these methods alone."""
    return {
        "extends": "config/config.yaml",
        "experiment": "gpu_check",
        "device": device,
        "precision": "auto",
        "seeds": [1],
        "imbalance_ratios": [1.0],
        "tasks": {
            "base_to_new": {"datasets": [DATASET]},
            "cross_dataset": None,
            "domain_generalization": None,
            "few_shot": None,
        },
        "only": ["table2"],
        "exhibits": {"table2": {"variants": list(methods)}},
    }


def workflow(check: Check) -> None:
    """Run it up to the metrics of its runs, on a copy of the project; a row for every run."""
    if find_spec("snakemake") is None:
        check.row("workflow", "left out", why="snakemake is not installed")
        return
    methods = METHODS[:1] if check.quick else METHODS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in NEEDED:
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
        (folder / "check.yaml").write_text(yaml.safe_dump(configuration(check.device.type, methods)))
        cores = str(min(8, os.cpu_count() or 1))
        words = [sys.executable, "-m", "snakemake", "--cores", cores, "--resources", "gpu=1"]
        words += ["--configfile", "check.yaml", "--", "results/gpu_check/runs.parquet"]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # jobs call cpt
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n")
            raise RuntimeError(f"snakemake ended with {done.returncode}; its output is in the log")
        results = folder / "results/gpu_check"
        metrics = read_parquet(results / "runs.parquet", RUNS)[0].to_pylist()
        for path_of_run in sorted(results.glob("runs/**/run.json")):
            record = read_json(path_of_run, RUN)
            accuracy = {
                f"{row['subset']}_accuracy": row["value"]
                for row in metrics
                if row["method"] == record["method"] and row["metric"] == "accuracy" and row["epoch"] is None
            }
            check.row("workflow", record["method"], **{key: record[key] for key in RECORDED}, **accuracy)
