rule predict:
    input:
        target_inputs,
        run=f"{ROOT}/runs/{{run}}/run.json",
    output:
        predictions=f"{ROOT}/runs/{{run}}/predictions.parquet",
        classifier=f"{ROOT}/runs/{{run}}/classifier.safetensors",
    log:
        f"{LOGS}/predict/{{run}}.log",
    threads: CONFIG.threads
    resources:
        gpu=GPU,
        mem_mb=8000,
        runtime=60,
    params:
        options=predict_options,
        code=CODE["predict"],
    shell:
        "cpt predict {params.options:q} >{log:q} 2>&1"


RUN = "{protocol}/{dataset}/r{ratio}/{key}/s{seed}"


rule score:
    input:
        predictions=f"{ROOT}/runs/{RUN}/predictions.parquet",
        split=f"{ROOT}/splits/{{protocol}}/{{dataset}}/r{{ratio}}/s{{seed}}.parquet",
    output:
        f"{ROOT}/runs/{RUN}/metrics.parquet",
    log:
        f"{LOGS}/score/{RUN}.log",
    params:
        code=CODE["score"],
    shell:
        'cpt score "$(dirname {output:q})" --split {input.split:q} >{log:q} 2>&1'


rule aggregate:
    input:
        grid=f"{ROOT}/grid.json",
        metrics=METRICS,
    output:
        runs=f"{ROOT}/runs.parquet",
        costs=f"{ROOT}/costs.parquet",
    log:
        f"{LOGS}/aggregate.log",
    localrule: True
    params:
        code=CODE["aggregate"],
    shell:
        "cpt aggregate --grid {input.grid:q} >{log:q} 2>&1"
