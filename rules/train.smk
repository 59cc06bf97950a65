rule train:
    input:
        unpack(run_inputs),
    output:
        prompts=f"{ROOT}/runs/{{run}}/prompts.safetensors",
        history=f"{ROOT}/runs/{{run}}/history.parquet",
        record=f"{ROOT}/runs/{{run}}/run.json",
    log:
        f"{LOGS}/train/{{run}}.log",
    retries: 1
    threads: CONFIG.threads
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        state_interval=CONFIG.state_interval,  # not a param: it changes no result
    params:
        method=lambda wildcards: RUNS[wildcards.run].method,
        seed=lambda wildcards: RUNS[wildcards.run].seed,
        hyperparameters=lambda wildcards: RUNS[wildcards.run].hyperparameters_json,
        optional=optional_inputs,
        augmentation=CONFIG.augmentation,
        device=CONFIG.device,
        precision=CONFIG.precision,
        threads=CONFIG.threads,
        folder=lambda wildcards, output: os.path.dirname(output.record),
        state=f"work/{CONFIG.experiment}/{{run}}.state",
        code=lambda wildcards: TRAIN_CODE[RUNS[wildcards.run].modules],
    shell:
        "cpt train --method {params.method} --seed {params.seed} --hyperparameters {params.hyperparameters:q}"
        " --backbone {input.backbone:q} --manifest {input.manifest:q} --split {input.split:q}"
        " --text-features {input.text_features:q} {params.optional:q} --augmentation {params.augmentation}"
        " --device {params.device} --precision {params.precision} --threads {params.threads}"
        " --state {params.state:q} --state-interval {resources.state_interval}"
        " --code {params.code} --output {params.folder:q} >{log:q} 2>&1"
