#!/usr/bin/env bash
# Snakemake calls this in the new environment, from the folder where it is started: the package itself.
set -euo pipefail
if [ -f pyproject.toml ]; then
    python -m pip install --no-deps -e .
else  # a folder of `cpt init`
    python -m pip install --no-deps cpt-longtail
fi
