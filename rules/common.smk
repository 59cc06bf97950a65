import json
import os
import sys
from pathlib import Path

from cpt import config as cpt_config
from cpt import paths
from cpt import workflow as cpt_workflow
from cpt.data.listing import digest
from cpt.errors import CptError
from cpt.provenance import code_version
from cpt.worker import start as start_fork_server

CONFIG_FILES = [os.path.relpath(path) for path in workflow.configfiles]
try:
    CONFIG = cpt_config.parse(config, " + ".join(CONFIG_FILES) or "--config")
    PLAN = cpt_workflow.load(
        CONFIG,
        " + ".join(CONFIG_FILES) or "--config",
        Path("work", CONFIG.experiment, "workflow.json"),
    )
    if cpt_config.load([Path(path) for path in CONFIG_FILES]) != CONFIG:
        raise CptError(
            "--config is not supported; put the changes into a file and give it with --configfile"
        )
except CptError as error:
    print(f"cpt: error: {error}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)  # one line and an exit code: Snakemake would print a traceback

ROOT = PLAN.root
LOGS = f"logs/{CONFIG.experiment}"
RUNS = PLAN.runs
CATALOG = PLAN.catalog
DATASETS = sorted(
    {
        name
        for run in RUNS.values()
        for name in (run.dataset, *(d for d, _ in run.targets))
    }
)
CLUSTERS = {run.clusters: run for run in RUNS.values() if run.clusters}
DESCRIPTIONS = {run.descriptions: run for run in RUNS.values() if run.descriptions}
RESULTS = [f"{ROOT}/runs.parquet", f"{ROOT}/costs.parquet"]
METRICS = [f"{ROOT}/runs/{run}/metrics.parquet" for run in RUNS]
TABLES = expand(
    f"{ROOT}/tables/{{name}}.{{suffix}}",
    name=[name for name, kind in PLAN.exhibits.items() if kind == "table"],
    suffix=["csv", "md", "tex", "html"],
)
FIGURES = expand(
    f"{ROOT}/figures/{{name}}.{{suffix}}",
    name=[name for name, kind in PLAN.exhibits.items() if kind != "table"],
    suffix=["svg", "pdf", "png", "csv"],
)
GPU = int(CONFIG.device != "cpu")  # places that a job takes on a GPU
TINY_CLIP = ["assets/tiny_clip"]
CODE = {
    "backbone": code_version("cpt.clip.make_backbone", data=TINY_CLIP),
    "data": code_version("cpt.data.layouts", data=TINY_CLIP),
    "pixels": code_version("cpt.data.pixels"),
    "split": code_version("cpt.data.split"),
    "text_features": code_version(
        "cpt.clip.features", "cpt.clip.make_backbone", "cpt.clip.templates"
    ),
    "descriptions": code_version(
        "cpt.clip.descriptions", "cpt.clip.make_backbone", "cpt.clip.templates"
    ),
    "image_features": code_version("cpt.image_features"),
    "clusters": code_version("cpt.mining"),
    "predict": code_version("cpt.predict"),
    "score": code_version("cpt.score"),
    "aggregate": code_version("cpt.aggregate"),
    "table": code_version("cpt.report.tables", data=["report/table.html.j2"]),
    "page": code_version("cpt.report.page", data=["report/page.html.j2"]),
}
FIGURE_CODE = {
    name: code_version("cpt.report.figures", f"cpt.report.{kind}")
    for name, kind in PLAN.exhibits.items()
    if kind != "table"
}
TRAIN_CODE = {
    modules: code_version("cpt.train", *modules)
    for modules in sorted({tuple(run.modules) for run in RUNS.values()})
}


wildcard_constraints:
    dataset="|".join(DATASETS),
    protocol="base_to_new|all_classes|few_shot",
    templates="[^/]+",
    part="train|val|test",
    descriptions="[^/]+",
    seed=r"\d+",
    key="[^/]+",
    ratio="[^/]+",
    name="|".join(PLAN.exhibits),
    run="|".join(("base_to_new/.+", "all_classes/.+", "few_shot/.+")),


def own_images(wildcards):
    """Names, sizes and times of a user's own images and split, which no rule makes."""
    entry = CATALOG[wildcards.dataset]
    return None if entry.fetched or not entry.has_files else digest(entry.folder)


def run_inputs(wildcards):
    """Files that a training job reads, by the option that takes them.

    Backbone and manifest are inputs of these: named again, they would cost seconds of every call.
    """
    run = RUNS[wildcards.run]
    needed = {
        "split": f"{ROOT}/{run.split}",
        "text_features": f"{ROOT}/{run.text_features}",
    }
    if run.clusters:
        needed["clusters"] = f"{ROOT}/{run.clusters}"
    for dataset, part in run.frozen_images:
        if part == "train":
            needed["image_features"] = f"{ROOT}/{paths.image_features(dataset, part)}"
    if run.descriptions:
        needed["descriptions"] = f"{ROOT}/{run.descriptions}"
    if run.start:
        needed["start"] = f"{ROOT}/runs/{run.start}/run.json"
    return needed


def train_options(wildcards, input, output):
    """Options of `cpt train`."""
    run = RUNS[wildcards.run]
    options = {
        "--method": run.method,
        "--seed": str(run.seed),
        "--hyperparameters": run.hyperparameters,
        "--backbone": f"{ROOT}/backbone.json",
        "--manifest": f"{ROOT}/{paths.manifest(run.dataset)}",
        "--split": input.split,
        "--text-features": input.text_features,
        "--clusters": input.get("clusters"),
        "--image-features": input.get("image_features"),
        "--descriptions": input.get("descriptions"),
        "--start": os.path.dirname(input.get("start", "")),
        "--augmentation": CONFIG.augmentation,
        "--device": CONFIG.device,
        "--precision": CONFIG.precision,
        "--threads": str(CONFIG.threads),
        "--state": f"work/{CONFIG.experiment}/{wildcards.run}.state",
        "--code": TRAIN_CODE[tuple(run.modules)],
        "--output": os.path.dirname(output.record),
    }
    return [
        word for option, value in options.items() if value for word in (option, value)
    ]


def template_sets(name):
    """The configuration's template set of this name as JSON, for `--sets`."""
    return json.dumps(
        {key: CONFIG.templates[key] for key in CONFIG.templates if key == name}
    )


def description_templates(path):
    """Template set that stands in for descriptions; any will do where the dataset has a file."""
    return DESCRIPTIONS[os.path.relpath(path, ROOT)].stand_in or "single"


def target_inputs(wildcards):
    """Features and image caches of every target of a run; manifests and backbone are inputs of these."""
    run = RUNS[wildcards.run]
    datasets = sorted({dataset for dataset, _ in run.targets})
    needed = [
        f"{ROOT}/{paths.text_features(dataset, run.templates)}" for dataset in datasets
    ]
    frozen = [(dataset, part) for dataset, part in run.frozen_images if part != "train"]
    if frozen:
        return needed + [f"{ROOT}/{paths.image_features(*key)}" for key in frozen]
    return needed + [
        f"{ROOT}/{paths.pixels(dataset, CONFIG.evaluate_on)}"
        for dataset in datasets
        if dataset in PLAN.pixels
    ]


def predict_options(wildcards, input):
    """Options of `cpt predict`."""
    words = [os.path.dirname(input.run), "--results", ROOT]
    words += ["--part", CONFIG.evaluate_on, "--device", CONFIG.device]
    words += ["--threads", str(CONFIG.threads)]
    for target in RUNS[wildcards.run].targets:
        words += ["--target", "/".join(target)]
    return words
