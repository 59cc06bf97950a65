rule predict:
    input:
        target_inputs,
        run=f"{ROOT}/runs/{{run}}/run.json",
        prompts=f"{ROOT}/runs/{{run}}/prompts.safetensors",
        backbone=f"{ROOT}/backbone.json",
    output:
        predictions=f"{ROOT}/runs/{{run}}/predictions.parquet",
        classifier=f"{ROOT}/runs/{{run}}/classifier.safetensors",
    log:
        f"{LOGS}/predict/{{run}}.log",
    threads: CONFIG.threads
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        folder=lambda wildcards, input: os.path.dirname(input.run),
        results=lambda wildcards, input: os.path.dirname(input.backbone),
        targets=lambda wildcards: [
            word
            for target in sorted(RUNS[wildcards.run].targets)
            for word in ("--target", "/".join(target))
        ],
        part=CONFIG.evaluate_on,
        device=CONFIG.device,
        threads=CONFIG.threads,
        code=CODE["predict"],
    shell:
        "cpt predict {params.folder:q} --results {params.results:q} {params.targets:q}"
        " --part {params.part} --device {params.device} --threads {params.threads} >{log:q} 2>&1"


rule score:
    input:
        predictions=f"{ROOT}/runs/{{run}}/predictions.parquet",
        split=lambda wildcards: f"{ROOT}/{RUNS[wildcards.run].split}",
    output:
        f"{ROOT}/runs/{{run}}/metrics.parquet",
    log:
        f"{LOGS}/score/{{run}}.log",
    params:
        folder=lambda wildcards, input: os.path.dirname(input.predictions),
        code=CODE["score"],
    shell:
        "cpt score {params.folder:q} --split {input.split:q} >{log:q} 2>&1"


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
