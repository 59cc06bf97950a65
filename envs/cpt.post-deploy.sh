#!/usr/bin/env bash
# Snakemake calls this in the new environment, from the project's folder: the package itself.
set -euo pipefail
python -m pip install --no-deps -e .
