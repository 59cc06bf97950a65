# Two commands do everything: `make run` and `make test`. Both need Python >= 3.11, make and git.
VENV ?= .venv
PYTHON ?= python3
CORES ?= $(shell $(PYTHON) -c 'import os; print(min(8, os.cpu_count()))')
PROFILE_ARGS ?=
BENCH_ARGS ?=
BIN := $(abspath $(VENV))/bin
READY := $(VENV)/.ready
export PATH := $(BIN):$(PATH)

.PHONY: run full test slow lint bench gpu-check environment generated tiny-clip clean

run: $(READY)  ## the default experiment: results/embedded/report/index.html
	snakemake --cores $(CORES) --resources gpu=1 $(PROFILE_ARGS)

full: $(READY)  ## every method, 11 datasets, 3 imbalance ratios (over an hour on two cores)
	snakemake --cores $(CORES) --resources gpu=1 --configfile config/embedded_full.yaml $(PROFILE_ARGS)

test: $(READY)  ## the fast tests
	python -m pytest -m "not slow" -n 2 --dist worksteal --cov=cpt --cov-report= --cov-fail-under=90

slow: $(READY)  ## the workflow end to end; the tests of a file share what they run, and SLURM's ports
	python -m pytest -m slow -n 3 --dist loadfile  # more than two cores: they wait more than they compute

lint: $(READY)
	ruff check .
	ruff format --check .
	codespell
	mypy
	snakefmt --check Snakefile rules
	snakemake --lint
	python envs/audit.py

bench: $(READY)  ## speed and memory against the naive way, about half an hour on a quiet machine
	python -m benchmarks $(BENCH_ARGS)

gpu-check: $(READY)  ## numerics, golden cases, waits, steps, kernels and a small experiment on a GPU (8 minutes)
	python -m benchmarks.gpu --out results/benchmarks/gpu.json

generated: $(READY)  ## write workflow/schemas and docs/methods.md anew from the code
	cpt schema
	cpt methods --sheet docs/methods.md
	python docs/write_numbers.py

tiny-clip: $(READY)  ## rebuild the shipped tiny CLIP from nothing (about 6 minutes)
	cpt pretrain

environment: $(READY)

$(READY): pyproject.toml envs/requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cpt needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

clean:  ## everything that is generated, but not the environment
	rm -rf results/*/ work logs

