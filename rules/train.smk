rule train:
    input:
        asked(lambda wildcards: STAGES.train(wildcards.run).inputs),
    output:
        expand(f"{ROOT}/runs/{{run}}/{{file}}", file=paths.TRAINED, allow_missing=True),
    log:
        f"{LOGS}/train/{{run}}.log",
    conda:
        ENVIRONMENT
    threads: WORKERS
    resources:
        gpu=GPU,
        mem_mb=growing(8000),
        runtime=growing(120),
        checkpoint_interval=CONFIG.checkpoint_interval,  # not a param: it changes no result
    params:
        words=asked(lambda wildcards: STAGES.train(wildcards.run).words),  # few fields: thousands of jobs are formatted
    shell:
        "cpt {params.words:q} --checkpoint-interval {resources.checkpoint_interval} --workers {threads} >{log:q} 2>&1"
