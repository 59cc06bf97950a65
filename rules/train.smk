rule train:
    input:
        unpack(run_inputs),
    output:
        prompts=f"{ROOT}/runs/{{run}}/prompts.safetensors",
        history=f"{ROOT}/runs/{{run}}/history.parquet",
        record=f"{ROOT}/runs/{{run}}/run.json",
    log:
        f"{LOGS}/train/{{run}}.log",
    conda:
        ENVIRONMENT
    threads: CONFIG.threads
    resources:
        gpu=GPU,
        mem_mb=growing(8000),
        runtime=growing(120),
        checkpoint_interval=CONFIG.checkpoint_interval,  # not a param: it changes no result
    params:
        options=train_options,  # one function, few fields: thousands of jobs are formatted
    shell:
        "cpt train {params.options:q} --checkpoint-interval {resources.checkpoint_interval} >{log:q} 2>&1"


for seeds, cells in BATCHES.items():

    rule:
        name:
            f"train_{batch_name(seeds)}"
        input:
            batch_files(seeds, training_files),
        output:
            expand(
                f"{ROOT}/runs/{{cell}}/s{{seed}}/{{file}}",
                seed=seeds,
                file=MADE["train"],
                allow_missing=True,
            ),
        log:
            f"{LOGS}/train/{{cell}}/{batch_name(seeds)}.log",
        wildcard_constraints:
            cell=one_of(cells),
        conda:
            ENVIRONMENT
        threads: CONFIG.threads
        resources:
            gpu=GPU,
            mem_mb=growing(8000),
            runtime=growing(120 * CONFIG.runs_per_job),
            checkpoint_interval=CONFIG.checkpoint_interval,
        params:
            commands=batch_commands(seeds, "train", training_options, training_files),
        shell:
            "cpt many {params.commands:q} --checkpoint-interval {resources.checkpoint_interval} >{log:q} 2>&1"
