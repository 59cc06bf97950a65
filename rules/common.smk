import json
import os
import re
import sys
from difflib import get_close_matches
from pathlib import Path

from snakemake.cli import get_argument_parser

from cpt.cli.fork_server import start as start_fork_server
from cpt.data.make_manifest import digest
from cpt.errors import CptError
from cpt.experiment import config as cpt_config
from cpt.experiment import resolved
from cpt.files import paths
from cpt.files.provenance import code_version
from cpt.files.provenance import stamp
from cpt.validation import no_braces
from cpt.workflow import instance

LOOKS = (
    "dryrun summary detailed_summary dag rulegraph filegraph d3dag lint list_rules list_target_rules list_changes"
    " list_input_changes list_params_changes list_untracked list_conda_envs print_compilation report"
).split()  # options of Snakemake that change no file


def refuse(problem):
    """End with one line and an exit code: Snakemake would print a traceback."""
    print(f"cpt: error: {problem}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def see_that_nobody_works(work, locks):
    """Refuse to work on what another Snakemake works on; to look at it does no harm."""
    if any(
        word.startswith("--unl") for word in sys.argv
    ):  # argparse takes the start of an option for it
        instance.check_unlock(work, locks)
        return
    try:
        instance.check(work, locks)
    except CptError:
        asked = get_argument_parser().parse_args()
        if asked.report_after_run or not any(getattr(asked, name) for name in LOOKS):
            raise


CONFIG_FILES = [os.path.relpath(path) for path in workflow.configfiles]


def tell(notice):
    """Print a notice about the configuration, once and not again in every job."""
    if workflow.is_main_process:
        print(f"cpt: notice: {notice}", file=sys.stderr)


try:
    for path in (str(workflow.basedir), *CONFIG_FILES):
        try:
            no_braces(path)
        except ValueError as error:
            raise CptError(f"{path}: {error}")
    if workflow.config_settings.config:
        raise CptError(
            "--config is not supported; put the changes into a file that has `extends: config/config.yaml` and give "
            "it with --configfile"
        )
    # Snakemake has read them too, otherwise than `cpt plan` does: its YAML is laxer
    CONFIG = cpt_config.load([Path(path) for path in CONFIG_FILES], tell)
    WORK = Path("work", CONFIG.experiment)
    if workflow.is_main_process:
        see_that_nobody_works(WORK, Path(".snakemake/locks"))
    PLAN = resolved.load(
        CONFIG,
        " + ".join(CONFIG_FILES),
        WORK / "workflow.json",
    )
    if workflow.is_main_process:
        resolved.remember(CONFIG_FILES, Path(PLAN.root))
except CptError as error:
    refuse(error)

ENVIRONMENT = "../envs/cpt.yaml"  # used only with --sdm conda
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
CLUSTERS = PLAN.clusters
DESCRIPTIONS = {run.descriptions: run for run in RUNS.values() if run.descriptions}
RESULTS = [f"{ROOT}/{name}.parquet" for name in ("runs", "costs", "counts", "curves")]
METRICS = [f"{ROOT}/runs/{run}/metrics.parquet" for run in RUNS]
COUNTS = [f"{ROOT}/runs/{run}/counts.parquet" for run in RUNS]
TABLES = expand(
    f"{ROOT}/tables/{{name}}.{{suffix}}",
    name=[name for name, kind in PLAN.exhibits.items() if kind == "table"],
    suffix=["csv", "md", "tex", "html"],
)
FIGURES = expand(
    f"{ROOT}/figures/{{name}}.{{suffix}}",
    name=[name for name, kind in PLAN.exhibits.items() if kind != "table"],
    suffix=["svg", "pdf", "png", "csv", "txt"],
)
CLASS_GROUPS = ":".join(map(str, CONFIG.class_groups.model_dump().values()))
GPU = int(CONFIG.device != "cpu")  # places that a job takes on a GPU
PAGE_FILES = [
    "page/page.html.j2",
    "page/page.css",
    "page/page.js",
    "templates/table.html.j2",
]
TINY_CLIP = ["assets/tiny_clip"]
CODE = {
    "backbone": stamp("cpt.clip.make_backbone", data=TINY_CLIP),
    "data": stamp("cpt.data.make_manifest", data=TINY_CLIP),
    "pixels": stamp("cpt.data.pixels"),
    "split": stamp("cpt.data.split"),
    "text_features": stamp(
        "cpt.features.text", "cpt.clip.make_backbone", "cpt.features.templates"
    ),
    "descriptions": stamp(
        "cpt.features.descriptions", "cpt.clip.make_backbone", "cpt.features.templates"
    ),
    "image_features": stamp("cpt.features.images"),
    "clusters": stamp("cpt.features.mining"),
    "predict": stamp("cpt.evaluation.predict"),
    "score": stamp("cpt.evaluation.score"),
    "aggregate": stamp("cpt.results.aggregate"),
    "table": stamp("cpt.report.tables", data=["report/templates/table.html.j2"]),
    "ledger": stamp(
        "cpt.report.printed.ledger", data=["report/templates/ledger.html.j2"]
    ),
    "audit": stamp(
        "cpt.report.printed.audit_text", data=["report/templates/audit.html.j2"]
    ),
    "page": stamp(
        "cpt.report.page.make", data=[f"report/{name}" for name in PAGE_FILES]
    ),
}
FIGURE_CODE = {
    name: stamp("cpt.report.figures.make", f"cpt.report.figures.{kind}")
    for name, kind in PLAN.exhibits.items()
    if kind != "table"
}
TRAIN_CODE = {
    modules: code_version("cpt.training.train", *modules)
    for modules in sorted({tuple(run.modules) for run in RUNS.values()})
}


def batches():
    """Seeds that one job handles: the runs without their seed that have exactly these."""
    seeds, found = {}, {}
    for name, run in RUNS.items():
        seeds.setdefault(os.path.dirname(name), []).append(run.seed)
    size = CONFIG.runs_per_job
    for cell, own in seeds.items():
        for first in range(0, len(own), size):
            together = tuple(sorted(own)[first : first + size])
            if len(together) > 1:
                found.setdefault(together, []).append(cell)
    return found


BATCHES = batches()
MADE = {
    "train": ["prompts.safetensors", "history.parquet", "run.json"],
    "predict": ["predictions.parquet", "classifier.safetensors"],
    "score": ["metrics.parquet", "counts.parquet"],
}
SINGLE_RUNS = "base_to_new/.+|all_classes/.+|few_shot/.+"
if BATCHES:
    together = {
        f"{cell}/s{seed}"
        for seeds, cells in BATCHES.items()
        for cell in cells
        for seed in seeds
    }
    SINGLE_RUNS = "|".join(map(re.escape, RUNS.keys() - together)) or "(?!)"


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
    run=SINGLE_RUNS,


def growing(amount):
    """A resource of which every further attempt gets once more."""
    return lambda wildcards, attempt: amount * attempt


def own_images(wildcards):
    """What there is of a user's own images, which no rule makes."""
    entry = CATALOG[wildcards.dataset]
    return None if entry.fetched or not entry.has_files else digest(entry)


def known(things, name, what):
    """What a target's name stands for; a name that the experiment does not have ends Snakemake."""
    if name not in things:
        close = get_close_matches(name, things, n=1)
        hint = f"did you mean {close[0]}?" if close else f"{ROOT}/grid.json lists all"
        refuse(f"{what} {name}: {CONFIG.experiment} has none of this name; {hint}")
    return things[name]


def run_inputs(wildcards):
    """Files that a training job reads, by the option that takes them."""
    return training_files(wildcards.run)


def training_files(name):
    """Files that the training of a run reads.

    Backbone and manifest are inputs of these: named again, they would cost seconds of every call.
    """
    run = known(RUNS, name, "run")
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


def train_options(wildcards):
    """Options of `cpt train`."""
    return training_options(wildcards.run)


def training_options(name):
    """Options of `cpt train` for a run."""
    run, files = RUNS[name], training_files(name)
    options = {
        "--method": run.method,
        "--seed": str(run.seed),
        "--hyperparameters": run.hyperparameters,
        "--backbone": f"{ROOT}/backbone.json",
        "--manifest": f"{ROOT}/{paths.manifest(run.dataset)}",
        "--split": files["split"],
        "--text-features": files["text_features"],
        "--clusters": files.get("clusters"),
        "--image-features": files.get("image_features"),
        "--descriptions": files.get("descriptions"),
        "--start": os.path.dirname(files.get("start", "")),
        "--augmentation": CONFIG.augmentation,
        "--device": CONFIG.device,
        "--precision": CONFIG.precision,
        "--threads": str(CONFIG.threads),
        "--checkpoint": f"work/{CONFIG.experiment}/{name}.checkpoint",
        "--code": TRAIN_CODE[tuple(run.modules)],
        "--output": f"{ROOT}/runs/{name}",
    }
    return [
        word for option, value in options.items() if value for word in (option, value)
    ]


def clustering(wildcards):
    """Text features and options of the clusters of this name."""
    return known(CLUSTERS, f"clusters/{wildcards.clusters}.parquet", "clusters")


def template_sets(name):
    """The configuration's template set of this name as JSON, for `--sets`."""
    return json.dumps(
        {key: CONFIG.templates[key] for key in CONFIG.templates if key == name}
    )


def description_templates(path):
    """Template set that stands in for descriptions; any will do where the dataset has a file."""
    name = os.path.relpath(path, ROOT)
    return known(DESCRIPTIONS, name, "descriptions").stand_in or "single"


def target_inputs(wildcards):
    """Features and image caches of every target of a run."""
    return target_files(wildcards.run)


def target_files(name):
    """Features and image caches of every target of a run; manifests and backbone are inputs of these."""
    run = known(RUNS, name, "run")
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


def prediction_files(name):
    """Files that the prediction of a run reads."""
    return [*target_files(name), f"{ROOT}/runs/{name}/run.json"]


def predict_options(wildcards):
    """Options of `cpt predict`."""
    return prediction_options(wildcards.run)


def prediction_options(name):
    """Options of `cpt predict` for a run."""
    words = [f"{ROOT}/runs/{name}", "--results", ROOT]
    words += ["--part", CONFIG.evaluate_on, "--device", CONFIG.device]
    words += ["--threads", str(CONFIG.threads)]
    for target in RUNS[name].targets:
        words += ["--target", "/".join(target)]
    return words


def scoring_files(name):
    """Files that the scoring of a run reads."""
    run = known(RUNS, name, "run")
    needed = [f"{ROOT}/runs/{name}/{file}" for file in MADE["predict"]]
    return [
        *needed,
        f"{ROOT}/{run.split}",
        *(f"{ROOT}/{path}" for path in [run.measured_clusters] if path),
    ]


def scoring_options(name):
    """Options of `cpt score` for a run."""
    run = RUNS[name]
    words = [f"{ROOT}/runs/{name}", "--split", f"{ROOT}/{run.split}"]
    if run.measured_clusters:
        words += ["--clusters", f"{ROOT}/{run.measured_clusters}"]
    return [*words, "--class-groups", CLASS_GROUPS]


# Several seeds of a run in one job (runs_per_job)


def batch_name(seeds):
    """Name of a group of seeds in rules and logs."""
    return f"seeds_{'_'.join(map(str, seeds))}"


def one_of(names):
    """Expression that matches these names and no others."""
    return "|".join(map(re.escape, names)) or "(?!)"


def batch_files(seeds, files):
    """Input function of a job for several seeds: the files of each run, once."""

    def needed(wildcards):
        found = {}
        for seed in seeds:
            own = files(f"{wildcards.cell}/s{seed}")
            found |= dict.fromkeys(own.values() if isinstance(own, dict) else own)
        return list(found)

    return needed


def batch_commands(seeds, verb, options, files):
    """Function for the arguments of `cpt many`: a command per seed, what it needs and what it makes."""

    def commands(wildcards):
        found = []
        for seed in seeds:
            name = f"{wildcards.cell}/s{seed}"
            own = files(name)
            command = {
                "words": [verb, *options(name)],
                "needs": list(own.values() if isinstance(own, dict) else own),
                "makes": [f"{ROOT}/runs/{name}/{file}" for file in MADE[verb]],
                "keep": f"work/{CONFIG.experiment}/{name}.{verb}",
                "code": CODE.get(verb, ""),  # that of a training is among its options
            }
            found.append(json.dumps(command, sort_keys=True))
        return found

    return commands
