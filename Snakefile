import sys

from snakemake.utils import min_version

min_version("9.10")
sys.path.insert(0, workflow.basedir)

if not config:  # a --configfile replaces the default instead of being merged over it

    configfile: "config/config.yaml"


container: "docker://ghcr.io/cpt-longtail/cpt:0.1.0"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/features.smk"
include: "rules/clusters.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


rule all:
    input:
        f"{ROOT}/report/index.html",
    default_target: True
    localrule: True


rule tables:
    input:
        TABLES,
    localrule: True


rule figures:
    input:
        FIGURES,
    localrule: True


onstart:
    start_fork_server()
