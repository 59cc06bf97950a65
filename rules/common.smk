import os
import re
import sys
from pathlib import Path

from snakemake.cli import get_argument_parser

from cpt.cli.fork_server import start as start_fork_server
from cpt.data.make_manifest import digest
from cpt.errors import CptError
from cpt.experiment.stages import batch_name
from cpt.experiment.stages import load_stages
from cpt.experiment.stages import one_of
from cpt.files import paths
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
    # argparse takes the start of an option for it
    if any(word.startswith("--unl") for word in sys.argv):
        return instance.check_unlock(work, locks)
    try:
        instance.check(work, locks)
    except CptError:
        asked = get_argument_parser().parse_args()
        if asked.report_after_run or not any(getattr(asked, name) for name in LOOKS):
            raise


def tell(notice):
    """Print a notice about the configuration, once and not again in every job."""
    if workflow.is_main_process:
        print(f"cpt: notice: {notice}", file=sys.stderr)


try:
    if workflow.config_settings.config:
        raise CptError(
            "--config is not supported; put the changes into a file that has `extends: config/config.yaml` and give "
            "it with --configfile"
        )
    # Snakemake has read the files too, otherwise than `cpt plan` does: its YAML is laxer
    STAGES = load_stages(
        str(workflow.basedir),
        [os.path.relpath(path) for path in workflow.configfiles],
        tell,
        remember=workflow.is_main_process,
    )
    CONFIG, ROOT, WORK = (
        STAGES.config,
        STAGES.root,
        Path("work", STAGES.config.experiment),
    )
    if workflow.is_main_process:
        see_that_nobody_works(WORK, Path(".snakemake/locks"))
except CptError as error:
    refuse(error)

LOGS = f"logs/{CONFIG.experiment}"
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
    key="[^/]+",
    ratio="[^/]+",
    name="|".join(STAGES.resolved.exhibits),
    run=STAGES.single_runs,


def asked(function):
    """Input or parameter function by the wildcards' values; a name that the experiment lacks ends Snakemake."""

    def of(wildcards):
        try:
            return function(wildcards)
        except CptError as error:
            refuse(error)

    return of


def growing(amount):
    """A resource of which every further attempt gets once more."""
    return lambda wildcards, attempt: amount * attempt


def own_images(wildcards):
    """What there is of a user's own images, which no rule makes."""
    entry = CATALOG[wildcards.dataset]
    return None if entry.fetched or not entry.has_files else digest(entry)
