# Several seeds of a run in one job (runs_per_job): the rules of train.smk and evaluate.smk for `cpt many`

from cpt.experiment.stages import batch_name, one_of

MINUTES = {"train": 120, "predict": 60}  # of one run
THREADS = {"train": WORKERS, "predict": CONFIG.threads, "score": 1}
MADE = {"train": paths.TRAINED, "predict": paths.PREDICTED, "score": paths.SCORED}


def of_batch(verb, seeds, part):
    """Input or parameter function of a job for several seeds."""
    return asked(
        lambda wildcards: getattr(STAGES.batch(verb, wildcards.cell, seeds), part)
    )


for seeds, cells in STAGES.batches.items():
    for verb, made in MADE.items():

        rule:
            name:
                f"{verb}_{batch_name(seeds)}"
            input:
                of_batch(verb, seeds, "inputs"),
            output:
                expand(
                    f"{ROOT}/runs/{{cell}}/s{{seed}}/{{file}}",
                    seed=seeds,
                    file=made,
                    allow_missing=True,
                ),
            log:
                f"{LOGS}/{verb}/{{cell}}/{batch_name(seeds)}.log",
            wildcard_constraints:
                cell=one_of(cells),
            conda:
                ENVIRONMENT
            threads: THREADS[verb]
            resources:
                **({} if verb == "score" else {"gpu": GPU}),
                **(
                    {"checkpoint_interval": CONFIG.checkpoint_interval}
                    if verb == "train"
                    else {}
                ),
                mem_mb=growing(2000 if verb == "score" else 8000),
                runtime=growing(
                    30 if verb == "score" else MINUTES[verb] * CONFIG.runs_per_job
                ),
            params:
                words=of_batch(verb, seeds, "words"),
            shell:
                "cpt {params.words:q}"
                + (
                    " --checkpoint-interval {resources.checkpoint_interval} --workers {threads}"
                    if verb == "train"
                    else ""
                )
                + " >{log:q} 2>&1"
