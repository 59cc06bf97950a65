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
        gpu=GPU,
        mem_mb=8000,
        runtime=120,
        state_interval=CONFIG.state_interval,  # not a param: it changes no result
    params:
        options=train_options,  # one function, few fields: thousands of jobs are formatted
    shell:
        "cpt train {params.options:q} --state-interval {resources.state_interval} >{log:q} 2>&1"
