rule clusters:
    input:
        text_features=lambda wildcards: f"{ROOT}/{clustering(wildcards)[0]}",
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
        options=lambda wildcards: clustering(wildcards)[1:],
        code=CODE["clusters"],
    shell:
        "cpt --code {params.code:q} clusters --text-features {input.text_features:q} {params.options:q}"
        " --output {output.clusters:q} >{log:q} 2>&1"
