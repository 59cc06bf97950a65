rule predict:
    input:
        target_inputs,
        run=f"{ROOT}/runs/{{run}}/run.json",
    output:
        predictions=f"{ROOT}/runs/{{run}}/predictions.parquet",
        classifier=f"{ROOT}/runs/{{run}}/classifier.safetensors",
    log:
        f"{LOGS}/predict/{{run}}.log",
    conda:
        ENVIRONMENT
    threads: CONFIG.threads
    resources:
        gpu=GPU,
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        options=predict_options,
        code=CODE["predict"],
    shell:
        "cpt --code {params.code:q} predict {params.options:q} >{log:q} 2>&1"


rule score:
    input:
        lambda wildcards: scoring_files(wildcards.run),
    output:
        metrics=f"{ROOT}/runs/{{run}}/metrics.parquet",
        counts=f"{ROOT}/runs/{{run}}/counts.parquet",
    log:
        f"{LOGS}/score/{{run}}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        options=lambda wildcards: scoring_options(wildcards.run),
        code=CODE["score"],
    shell:
        "cpt --code {params.code:q} score {params.options:q} >{log:q} 2>&1"


for seeds, cells in BATCHES.items():

    rule:
        name:
            f"predict_{batch_name(seeds)}"
        input:
            batch_files(seeds, prediction_files),
        output:
            expand(
                f"{ROOT}/runs/{{cell}}/s{{seed}}/{{file}}",
                seed=seeds,
                file=MADE["predict"],
                allow_missing=True,
            ),
        log:
            f"{LOGS}/predict/{{cell}}/{batch_name(seeds)}.log",
        wildcard_constraints:
            cell=one_of(cells),
        conda:
            ENVIRONMENT
        threads: CONFIG.threads
        resources:
            gpu=GPU,
            mem_mb=growing(8000),
            runtime=growing(60 * CONFIG.runs_per_job),
        params:
            commands=batch_commands(
                seeds, "predict", prediction_options, prediction_files
            ),
            code=CODE["predict"],
        shell:
            "cpt many {params.commands:q} >{log:q} 2>&1"

    rule:
        name:
            f"score_{batch_name(seeds)}"
        input:
            batch_files(seeds, scoring_files),
        output:
            expand(
                f"{ROOT}/runs/{{cell}}/s{{seed}}/{{file}}",
                seed=seeds,
                file=MADE["score"],
                allow_missing=True,
            ),
        log:
            f"{LOGS}/score/{{cell}}/{batch_name(seeds)}.log",
        wildcard_constraints:
            cell=one_of(cells),
        conda:
            ENVIRONMENT
        resources:
            mem_mb=growing(2000),
            runtime=growing(30),
        params:
            commands=batch_commands(seeds, "score", scoring_options, scoring_files),
            code=CODE["score"],
        shell:
            "cpt many {params.commands:q} >{log:q} 2>&1"


rule aggregate:
    input:
        grid=f"{ROOT}/grid.json",
        metrics=METRICS,
        counts=COUNTS,
    output:
        runs=f"{ROOT}/runs.parquet",
        costs=f"{ROOT}/costs.parquet",
        counts=f"{ROOT}/counts.parquet",
        curves=f"{ROOT}/curves.parquet",
    log:
        f"{LOGS}/aggregate.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=CODE["aggregate"],
    shell:
        "cpt --code {params.code:q} aggregate --grid {input.grid:q} >{log:q} 2>&1"
