import os
import sys
from pathlib import Path

from snakemake.cli import get_argument_parser

from cpt.errors import CptError
from cpt.experiment.stages import load_stages
from cpt.files import paths
from cpt.workflow import instance


def refuse(problem):
    """End with one line and an exit code: Snakemake would print a traceback."""
    print(f"cpt: error: {problem}", file=sys.stderr, flush=True)
    os._exit(1)


def asked(function):
    """Input or parameter function by the wildcards' values; a name that the experiment lacks ends Snakemake."""

    def of(wildcards):
        try:
            return function(wildcards)
        except CptError as error:
            refuse(error)

    return of


def growing(amount):
    """A resource that grows by `amount` with each attempt."""
    return lambda wildcards, attempt: amount * attempt


try:
    STAGES = load_stages(workflow)
    CONFIG, ROOT = STAGES.config, STAGES.root
    WORK, LOGS = Path("work", CONFIG.experiment), f"logs/{CONFIG.experiment}"
    if workflow.is_main_process:
        instance.check_call(WORK, sys.argv, get_argument_parser)
except CptError as error:
    refuse(error)

CATALOG = STAGES.resolved.catalog
ENVIRONMENT = "../envs/cpt.yaml"  # used only with --sdm conda
GPU = int(CONFIG.device != "cpu")  # places that a job takes on a GPU


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
