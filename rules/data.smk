rule grid:
    input:
        config=ancient(STAGES.files),  # what they resolve to counts: params.digest
    output:
        f"{ROOT}/grid.json",
    log:
        f"{LOGS}/grid.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        digest=STAGES.resolved.digest,
    shell:
        "cpt grid --output {output:q} -- {input.config:q} >{log:q} 2>&1"


rule fetch:
    output:
        f"{ROOT}/data/{{dataset}}/fetched.json",
    log:
        f"{LOGS}/data/{{dataset}}-fetch.log",
    localrule: True  # compute nodes often have no internet
    conda:
        ENVIRONMENT
    params:
        catalog=CONFIG.catalog,
        wanted=lambda wildcards: CATALOG[wildcards.dataset].wanted,
    shell:
        "cpt data fetch {wildcards.dataset:q} --catalog {params.catalog:q} --output {output:q} >{log:q} 2>&1"


rule data:
    input:
        fetched=lambda wildcards: (
            f"{ROOT}/data/{wildcards.dataset}/fetched.json"
            if CATALOG[wildcards.dataset].fetched
            else []
        ),
    output:
        manifest=f"{ROOT}/data/{{dataset}}/manifest.parquet",
    log:
        f"{LOGS}/data/{{dataset}}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        entry=lambda wildcards: CATALOG[wildcards.dataset].identity,
        images=lambda wildcards: STAGES.own_images(wildcards.dataset),
        folder=lambda wildcards, output: os.path.dirname(output.manifest),
        catalog=CONFIG.catalog,
        code=STAGES.code("data"),
    shell:
        "cpt --code {params.code:q} data manifest {wildcards.dataset:q} --catalog {params.catalog:q} --output {params.folder:q} >{log:q} 2>&1"


rule pixels:
    input:
        manifest=f"{ROOT}/data/{{dataset}}/manifest.parquet",
        backbone=f"{ROOT}/backbone.json",
    output:
        pixels=f"{ROOT}/data/{{dataset}}/pixels-{{part}}.npy",
        record=f"{ROOT}/data/{{dataset}}/pixels-{{part}}.json",
    log:
        f"{LOGS}/data/{{dataset}}-pixels-{{part}}.log",
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        code=STAGES.code("pixels"),
    shell:
        "cpt --code {params.code:q} data pixels --manifest {input.manifest:q} --part {wildcards.part} --backbone {input.backbone:q}"
        " --threads {threads} --output {output.pixels:q} >{log:q} 2>&1"


rule split:
    input:
        manifest=f"{ROOT}/data/{{dataset}}/manifest.parquet",
    output:
        f"{ROOT}/splits/{{protocol}}/{{dataset}}/r{{ratio}}/s{{seed}}.parquet",
    log:
        f"{LOGS}/splits/{{protocol}}/{{dataset}}/r{{ratio}}/s{{seed}}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        n_max=CONFIG.n_max,
        class_order=CONFIG.class_order,
        code=STAGES.code("split"),
    shell:
        "cpt --code {params.code:q} split --manifest {input.manifest:q} --protocol {wildcards.protocol} --ratio {wildcards.ratio}"
        " --seed {wildcards.seed} --n-max {params.n_max} --class-order {params.class_order}"
        " --output {output:q} >{log:q} 2>&1"
