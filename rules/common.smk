import os
import sys
from pathlib import Path

from snakemake.cli import get_argument_parser

from cpt.errors import CptError
from cpt.experiment.exhibits import table_suffixes
from cpt.experiment.stages import load_stages
from cpt.files import paths
from cpt.workflow import instance
from cpt.workflow.rules import (
    asked,
    asks_for_exhibits,
    check_first_jobs,
    cores_and_places,
    growing,
    refuse,
)

try:
    STAGES = load_stages(workflow)
    CONFIG, ROOT = STAGES.config, STAGES.root
    WORK, LOGS = Path("work", CONFIG.experiment), f"logs/{CONFIG.experiment}"
    if workflow.is_main_process:
        instance.check_call(WORK, sys.argv, get_argument_parser)
        check_first_jobs(STAGES, workflow, sys.argv, get_argument_parser)
    # a table that is asked for by its file is made of the runs that it shows, instead of all
    IN_PARTS = workflow.is_main_process and asks_for_exhibits(
        sys.argv, get_argument_parser, ROOT, {*STAGES.tables, *STAGES.figures}
    )
except CptError as error:
    refuse(error)

CATALOG = STAGES.resolved.catalog
ENVIRONMENT = "../envs/cpt.yaml"  # used only with --sdm conda
GPU = int(CONFIG.device != "cpu")  # places that a job takes on a GPU
WORKERS = STAGES.workers(*cores_and_places(workflow))


def exhibit(kind, suffixes, reported):
    """Files of a table or figure; those of some suffixes are in Snakemake's report."""
    files = {suffix: f"{ROOT}/{kind}s/{{name}}.{suffix}" for suffix in suffixes}
    for suffix in reported:
        files[suffix] = report(
            files[suffix],
            caption=f"../workflow/report/{kind}.rst",
            category=f"{kind.capitalize()}s",
            labels={kind: "{name}", "format": suffix},
        )
    return list(files.values())


def gathered(file):
    """Results of the runs that a table or figure is made of."""
    return f"{ROOT}/{f'{paths.PARTS}/{{name}}/' if IN_PARTS else ''}{file}"


wildcard_constraints:
    dataset="|".join(STAGES.datasets),
    protocol="base_to_new|all_classes|few_shot",
    part="train|val|test",
    seed=r"\d+",
    templates="[^/]+",
    descriptions="[^/]+",
    ratio="[^/]+",
    name="|".join(STAGES.resolved.exhibits),
    run=STAGES.single_runs,
