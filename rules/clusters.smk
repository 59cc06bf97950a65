rule clusters:
    input:
        split=lambda wildcards: f"{ROOT}/{CLUSTERS[f'clusters/{wildcards.clusters}.parquet'].split}",
        text_features=lambda wildcards: f"{ROOT}/{CLUSTERS[f'clusters/{wildcards.clusters}.parquet'].text_features}",
    output:
        clusters=f"{ROOT}/clusters/{{clusters}}.parquet",
        centroids=f"{ROOT}/clusters/{{clusters}}.safetensors",
    log:
        f"{LOGS}/clusters/{{clusters}}.log",
    params:
        options=lambda wildcards: clustering_options(
            CLUSTERS[f"clusters/{wildcards.clusters}.parquet"]
        ),
        code=CODE["clusters"],
    shell:
        "cpt clusters --split {input.split:q} --text-features {input.text_features:q} {params.options:q}"
        " --output {output.clusters:q} >{log:q} 2>&1"
