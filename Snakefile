import shlex
import sys

from snakemake.utils import min_version

min_version("9.10")
sys.path.insert(0, workflow.basedir)
from cpt.cli.fork_server import start as start_fork_server
from cpt.workflow.rules import require_folder
from cpt.workflow.stopping import stop_jobs_first

require_folder()

if (
    not workflow.configfiles
):  # a --configfile replaces the default instead of being merged over it

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


container: "envs/cpt.sif"  # built from envs/cpt.def; used only with --sdm apptainer


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/features.smk"
include: "rules/clusters.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/batches.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        f"{ROOT}/report/index.html",
        STAGES.gathered,
        STAGES.scored,
        STAGES.tables,
        STAGES.figures,  # named here too, so that a deleted one is made again
    localrule: True


rule tables:
    input:
        STAGES.tables,
    localrule: True


rule figures:
    input:
        STAGES.figures,
    localrule: True


onstart:
    instance.claim(WORK)
    if workflow.is_main_process:
        stop_jobs_first()
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        # the default: to keep it, Snakemake 9 wakes once a second for every job that has finished
        workflow.scheduler.job_rate_limiter = None
    if (
        CONFIG.fork_server
        and workflow.is_main_process
        and workflow.local_exec
        and not workflow.deployment_settings.deployment_method
    ):  # jobs on other machines or in containers do not share its libraries
        start_fork_server(f"{LOGS}/fork-server.log")


onsuccess:
    instance.release(WORK)
    if not IN_PARTS:
        print(f"open {ROOT}/report/index.html")


onerror:
    instance.release(WORK)
    print(
        f"`{shlex.join(['cpt', 'status', *STAGES.files])}` says what failed or was stopped, and why"
    )
