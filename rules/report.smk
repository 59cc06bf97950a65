rule table:
    input:
        grid=f"{ROOT}/grid.json",
        runs=gathered("runs.parquet"),
    output:
        exhibit("table", table_suffixes(), reported=("csv", "html")),
    log:
        f"{LOGS}/tables/{{name}}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        results=lambda wildcards, input: os.path.dirname(input.grid),
        code=STAGES.code("table"),
    shell:
        "cpt --code {params.code:q} table {wildcards.name} --results {params.results:q} --runs {input.runs:q} >{log:q} 2>&1"


rule figure:
    input:
        grid=f"{ROOT}/grid.json",
        runs=gathered("runs.parquet"),
        beside=[gathered(file) for file in paths.GATHERED[1:]],
    output:
        exhibit("figure", paths.FIGURE, reported=("svg",)),
    log:
        f"{LOGS}/figures/{{name}}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        results=lambda wildcards, input: os.path.dirname(input.grid),
        code=asked(lambda wildcards: STAGES.figure_code(wildcards.name)),
    shell:
        "cpt --code {params.code:q} figure {wildcards.name} --results {params.results:q} --runs {input.runs:q} >{log:q} 2>&1"


rule ledger:
    input:
        grid=f"{ROOT}/grid.json",
        runs=f"{ROOT}/runs.parquet",
        published="config/published.csv",
    output:
        html=f"{ROOT}/report/ledger.html",
        parquet=f"{ROOT}/report/ledger.parquet",
        csv=f"{ROOT}/report/ledger.csv",
    log:
        f"{LOGS}/ledger.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        results=lambda wildcards, input: os.path.dirname(input.grid),
        code=STAGES.code("ledger"),
    shell:
        "cpt --code {params.code:q} ledger --results {params.results:q} --published {input.published:q} >{log:q} 2>&1"


rule audit:
    input:
        published="config/published.csv",
        claims="config/published_claims.yaml",
    output:
        html=f"{ROOT}/report/audit.html",
        md=f"{ROOT}/report/audit.md",
    log:
        f"{LOGS}/audit.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        folder=lambda wildcards, output: os.path.dirname(output.html),
        code=STAGES.code("audit"),
    shell:
        "cpt --code {params.code:q} audit --published {input.published:q} --claims {input.claims:q} --output {params.folder:q} >{log:q} 2>&1"


rule page:
    input:
        ledger=f"{ROOT}/report/ledger.html",
        audit=f"{ROOT}/report/audit.html",
        grid=f"{ROOT}/grid.json",
        runs=f"{ROOT}/runs.parquet",
        costs=f"{ROOT}/costs.parquet",
        counts=f"{ROOT}/counts.parquet",
        curves=f"{ROOT}/curves.parquet",
        tables=STAGES.tables,
        figures=STAGES.figures,
    output:
        report(
            f"{ROOT}/report/index.html",
            caption="../workflow/report/page.rst",
            category="Page",
            labels={"page": "all tables and figures"},
        ),
    log:
        f"{LOGS}/page.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        results=lambda wildcards, input: os.path.dirname(input.grid),
        code=STAGES.code("page"),
    shell:
        "cpt --code {params.code:q} page --results {params.results:q} >{log:q} 2>&1"
