rule grid:
    input:
        config=ancient(CONFIG_FILES),  # what they resolve to counts: params.digest
    output:
        f"{ROOT}/grid.json",
    log:
        f"{LOGS}/grid.log",
    localrule: True
    params:
        digest=GRID_DIGEST,
    shell:
        "cpt grid {input.config:q} --output {output:q} >{log:q} 2>&1"


rule data:
    output:
        manifest=f"{ROOT}/data/{{dataset}}/manifest.parquet",
    log:
        f"{LOGS}/data/{{dataset}}.log",
    params:
        entry=lambda wildcards: GRID.catalog[wildcards.dataset].model_dump_json(
            exclude={"title", "counterpart", "template", "descriptions"}
        ),
        folder=lambda wildcards, output: os.path.dirname(output.manifest),
        catalog=CONFIG.catalog,
        code=CODE["data"],
    shell:
        "cpt data {wildcards.dataset} --catalog {params.catalog:q} --output {params.folder:q} >{log:q} 2>&1"


rule split:
    input:
        manifest=f"{ROOT}/data/{{dataset}}/manifest.parquet",
    output:
        f"{ROOT}/splits/{{protocol}}/{{dataset}}/r{{ratio}}/s{{seed}}.parquet",
    log:
        f"{LOGS}/splits/{{protocol}}/{{dataset}}/r{{ratio}}/s{{seed}}.log",
    params:
        n_max=CONFIG.n_max,
        class_order=CONFIG.class_order,
        code=CODE["split"],
    shell:
        "cpt split --manifest {input.manifest:q} --protocol {wildcards.protocol} --ratio {wildcards.ratio}"
        " --seed {wildcards.seed} --n-max {params.n_max} --class-order {params.class_order}"
        " --output {output:q} >{log:q} 2>&1"
