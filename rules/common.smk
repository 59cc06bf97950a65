import json
import os
import sys
from pathlib import Path

from cpt import config as cpt_config
from cpt import grid as cpt_grid
from cpt import paths
from cpt.errors import CptError
from cpt.provenance import code_version
from cpt.worker import start as start_fork_server

CONFIG_FILES = [os.path.relpath(path) for path in workflow.configfiles]
try:
    CONFIG = cpt_config.parse(config, " + ".join(CONFIG_FILES) or "--config")
    GRID = cpt_grid.build(CONFIG, " + ".join(CONFIG_FILES) or "--config")
    if cpt_config.load([Path(path) for path in CONFIG_FILES]) != CONFIG:
        raise CptError(
            "--config is not supported; put the changes into a file and give it with --configfile"
        )
except CptError as error:
    print(f"cpt: error: {error}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)  # one line and an exit code: Snakemake would print a traceback

ROOT = GRID.root
LOGS = f"logs/{CONFIG.experiment}"
RUNS = GRID.runs
DATASETS = sorted(
    {
        name
        for run in RUNS.values()
        for name in (run.dataset, *(d for d, _ in run.targets))
    }
)
CLUSTERS = {run.clusters: run for run in RUNS.values() if run.clusters}
DESCRIPTIONS = {
    GRID.descriptions(run): run for run in RUNS.values() if GRID.descriptions(run)
}
RESULTS = [f"{ROOT}/runs.parquet", f"{ROOT}/costs.parquet"]
METRICS = [f"{ROOT}/runs/{run}/metrics.parquet" for run in RUNS]
TABLES = expand(
    f"{ROOT}/tables/{{name}}.{{suffix}}",
    name=[
        name for name, exhibit in GRID.exhibits.items() if exhibit["kind"] == "table"
    ],
    suffix=["csv", "md", "tex", "html"],
)
FIGURES = expand(
    f"{ROOT}/figures/{{name}}.{{suffix}}",
    name=[
        name for name, exhibit in GRID.exhibits.items() if exhibit["kind"] != "table"
    ],
    suffix=["svg", "pdf", "png", "csv"],
)
TINY_CLIP = ["assets/tiny_clip"]
CODE = {
    "backbone": code_version("cpt.clip.make_backbone", data=TINY_CLIP),
    "data": code_version("cpt.data.layouts", data=TINY_CLIP),
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
    name: code_version("cpt.report.figures", f"cpt.report.{exhibit['kind']}")
    for name, exhibit in GRID.exhibits.items()
    if exhibit["kind"] != "table"
}
TRAIN_CODE = {
    modules: code_version("cpt.train", *modules)
    for modules in sorted({run.modules for run in RUNS.values()})
}
GRID_DIGEST = cpt_grid.digest(GRID)


wildcard_constraints:
    dataset="|".join(DATASETS),
    protocol="base_to_new|all_classes|few_shot",
    templates="[^/]+",
    part="train|val|test",
    descriptions="[^/]+",
    seed=r"\d+",
    name="|".join(GRID.exhibits),
    run="|".join(("base_to_new/.+", "all_classes/.+", "few_shot/.+")),


def run_inputs(wildcards):
    """Files that a training job reads, by the option that takes them."""
    run = RUNS[wildcards.run]
    needed = {
        "backbone": f"{ROOT}/backbone.json",
        "manifest": f"{ROOT}/{paths.manifest(run.dataset)}",
        "split": f"{ROOT}/{run.split}",
        "text_features": f"{ROOT}/{run.text_features}",
    }
    if run.clusters:
        needed["clusters"] = f"{ROOT}/{run.clusters}"
    for dataset, part in GRID.frozen_image_parts(run):
        if part == "train":
            needed["image_features"] = f"{ROOT}/{paths.image_features(dataset, part)}"
    if GRID.descriptions(run):
        needed["descriptions"] = f"{ROOT}/{GRID.descriptions(run)}"
    if run.start:
        needed["start"] = f"{ROOT}/runs/{run.start.id}/run.json"
        needed["start_prompts"] = f"{ROOT}/runs/{run.start.id}/prompts.safetensors"
    return needed


def optional_inputs(wildcards, input):
    """Options of `cpt train` for the inputs that only some methods have."""
    options = {
        "--clusters": input.get("clusters"),
        "--image-features": input.get("image_features"),
        "--descriptions": input.get("descriptions"),
        "--start": os.path.dirname(input.get("start", "")),
    }
    return [word for option, path in options.items() if path for word in (option, path)]


def template_sets(name):
    """The configuration's template set of this name as JSON, for `--sets`."""
    return json.dumps(
        {key: CONFIG.templates[key] for key in CONFIG.templates if key == name}
    )


def description_templates(path):
    """Template set that stands in for descriptions; any will do where the dataset has a file."""
    run = DESCRIPTIONS[os.path.relpath(path, ROOT)]
    own = GRID.catalog[run.dataset].descriptions
    return "single" if own else run.hyperparameters.descriptions


def target_inputs(wildcards):
    """Manifests and features of every target of a run."""
    run = RUNS[wildcards.run]
    datasets = sorted({dataset for dataset, _ in run.targets})
    templates = run.hyperparameters.templates
    needed = [f"{ROOT}/{paths.manifest(dataset)}" for dataset in datasets]
    needed += [
        f"{ROOT}/{paths.text_features(dataset, templates)}" for dataset in datasets
    ]
    needed += [
        f"{ROOT}/{paths.image_features(d, part)}"
        for d, part in GRID.frozen_image_parts(run)
        if part != "train"
    ]
    return needed


def clustering_options(run):
    """Options of `cpt clusters` for the clusters that a run needs."""
    chosen = run.clustering
    words = [
        "--protocol",
        run.protocol,
        "--algorithm",
        chosen["algorithm"],
        "--seed",
        str(chosen["seed"]),
    ]
    if chosen["clusters"]:
        return [*words, "--number", str(chosen["clusters"])]
    return [*words, "--classes-per-cluster", str(chosen["classes_per_cluster"])]
