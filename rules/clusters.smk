rule clusters:
    input:
        text_features=asked(
            lambda wildcards: STAGES.clusters(wildcards.clusters).inputs
        ),
    output:
        clusters=f"{ROOT}/clusters/{{clusters}}.parquet",
        centroids=f"{ROOT}/clusters/{{clusters}}.safetensors",
    log:
        f"{LOGS}/clusters/{{clusters}}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        words=asked(lambda wildcards: STAGES.clusters(wildcards.clusters).words),
        code=STAGES.code("clusters"),
    shell:
        "cpt --code {params.code:q} {params.words:q}"
        " --output {output.clusters:q} >{log:q} 2>&1"
