rule predict:
    input:
        asked(lambda wildcards: STAGES.predict(wildcards.run).inputs),
    output:
        expand(
            f"{ROOT}/runs/{{run}}/{{file}}", file=paths.PREDICTED, allow_missing=True
        ),
    log:
        f"{LOGS}/predict/{{run}}.log",
    conda:
        ENVIRONMENT
    threads: CONFIG.threads
    resources:
        gpu=GPU,
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        words=asked(lambda wildcards: STAGES.predict(wildcards.run).words),
        code=STAGES.code("predict"),
    shell:
        "cpt --code {params.code:q} {params.words:q} >{log:q} 2>&1"


rule score:
    input:
        asked(lambda wildcards: STAGES.score(wildcards.run).inputs),
    output:
        expand(f"{ROOT}/runs/{{run}}/{{file}}", file=paths.SCORED, allow_missing=True),
    log:
        f"{LOGS}/score/{{run}}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        words=asked(lambda wildcards: STAGES.score(wildcards.run).words),
        code=STAGES.code("score"),
    shell:
        "cpt --code {params.code:q} {params.words:q} >{log:q} 2>&1"


rule aggregate:
    input:
        grid=f"{ROOT}/grid.json",
        scored=STAGES.scored,
    output:
        STAGES.gathered,
    log:
        f"{LOGS}/aggregate.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=STAGES.code("aggregate"),
    shell:
        "cpt --code {params.code:q} aggregate --grid {input.grid:q} >{log:q} 2>&1"


rule part:
    input:
        asked(lambda wildcards: STAGES.part(wildcards.name).inputs),
    output:
        expand(
            f"{ROOT}/{paths.PARTS}/{{name}}/{{file}}",
            file=paths.GATHERED,
            allow_missing=True,
        ),
    log:
        f"{LOGS}/parts/{{name}}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        words=asked(lambda wildcards: STAGES.part(wildcards.name).words),
        code=STAGES.code("aggregate"),
    shell:
        "cpt --code {params.code:q} {params.words:q} >{log:q} 2>&1"
