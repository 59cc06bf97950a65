rule backbone:
    input:
        files=STAGES.backbone_files,
    output:
        record=f"{ROOT}/backbone.json",
        weights=f"{ROOT}/backbone.safetensors",
    log:
        f"{LOGS}/backbone.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        name=CONFIG.backbone.name,
        architecture=CONFIG.backbone.architecture,
        pretrained=CONFIG.backbone.pretrained,
        checksum=f" --sha256 {CONFIG.backbone.sha256}" if CONFIG.backbone.sha256 else "",
        code=STAGES.code("backbone"),
    shell:
        "cpt --code {params.code:q} backbone --name {params.name:q} --architecture {params.architecture:q}"
        " --pretrained {params.pretrained:q}{params.checksum} --output {output.record:q} >{log:q} 2>&1"


rule text_features:
    input:
        manifest=f"{ROOT}/data/{{dataset}}/manifest.parquet",
        backbone=f"{ROOT}/backbone.json",
    output:
        f"{ROOT}/features/{{dataset}}/text-{{templates}}.safetensors",
    log:
        f"{LOGS}/features/{{dataset}}/text-{{templates}}.log",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        catalog=CONFIG.catalog,
        template=lambda wildcards: (
            CATALOG[wildcards.dataset].template,
            CATALOG[wildcards.dataset].template_for(wildcards.templates),
        ),
        sets=lambda wildcards: STAGES.template_sets(wildcards.templates),
        device=CONFIG.device,
        code=STAGES.code("text_features"),
    shell:
        "cpt --code {params.code:q} text-features {wildcards.dataset:q} --manifest {input.manifest:q} --backbone {input.backbone:q}"
        " --templates {wildcards.templates:q} --sets {params.sets:q} --catalog {params.catalog:q}"
        " --device {params.device} --threads {threads} --output {output:q} >{log:q} 2>&1"


rule descriptions:
    input:
        manifest=f"{ROOT}/data/{{dataset}}/manifest.parquet",
        backbone=f"{ROOT}/backbone.json",
        file=lambda wildcards: CATALOG[wildcards.dataset].descriptions or [],
    output:
        f"{ROOT}/features/{{dataset}}/descriptions-{{descriptions}}.safetensors",
    log:
        f"{LOGS}/features/{{dataset}}/descriptions-{{descriptions}}.log",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        catalog=CONFIG.catalog,
        template=lambda wildcards: CATALOG[wildcards.dataset].template,
        templates=asked(
            lambda wildcards: STAGES.stand_in(
                wildcards.dataset, wildcards.descriptions
            )
        ),
        sets=asked(
            lambda wildcards: STAGES.template_sets(
                STAGES.stand_in(wildcards.dataset, wildcards.descriptions)
            )
        ),
        device=CONFIG.device,
        code=STAGES.code("descriptions"),
    shell:
        "cpt --code {params.code:q} descriptions {wildcards.dataset:q} --manifest {input.manifest:q} --backbone {input.backbone:q}"
        " --templates {params.templates:q} --sets {params.sets:q} --catalog {params.catalog:q}"
        " --device {params.device} --threads {threads} --output {output:q} >{log:q} 2>&1"


rule image_features:
    input:
        manifest=f"{ROOT}/data/{{dataset}}/manifest.parquet",
        backbone=f"{ROOT}/backbone.json",
        pixels=lambda wildcards: (
            f"{ROOT}/{paths.pixels(wildcards.dataset, wildcards.part)}"
            if wildcards.part == CONFIG.evaluate_on
            and wildcards.dataset in STAGES.resolved.pixels
            else []
        ),
    output:
        f"{ROOT}/features/{{dataset}}/images-{{part}}.safetensors",
    log:
        f"{LOGS}/features/{{dataset}}/images-{{part}}.log",
    conda:
        ENVIRONMENT
    threads: CONFIG.threads
    resources:
        gpu=GPU,
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        device=CONFIG.device,
        precision=CONFIG.precision,
        threads=CONFIG.threads,
        pixels=lambda wildcards, input: (
            ["--pixels", input.pixels] if input.pixels else []
        ),
        code=STAGES.code("image_features"),
    shell:
        "cpt --code {params.code:q} image-features --manifest {input.manifest:q} --part {wildcards.part} --backbone {input.backbone:q} {params.pixels:q}"
        " --device {params.device} --precision {params.precision} --threads {params.threads}"
        " --output {output:q} >{log:q} 2>&1"
