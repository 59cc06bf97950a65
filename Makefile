# `make help` lists the targets. They need Python >= 3.11, make and git.
VENV ?= .venv
PYTHON ?= python3
CORES ?= $(shell $(PYTHON) -c 'import os; print(min(8, os.cpu_count()))')
PROFILE_ARGS ?=
BENCH_ARGS ?=
BIN := $(abspath $(VENV))/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
DOCS_READY := $(VENV)/.ready-docs
OLDEST := .venv-oldest
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
MODELS := first-s1 first-s2 second-s0 second-s1 second-s2
MKDOCS := NO_MKDOCS_2_WARNING=1 python -m mkdocs
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help run full environment test slow test-python test-oldest dist lint bench gpu-check generated tiny-clip worlds docs docs-serve dev clean

help:  ## this list
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ To use it
run: $(READY)  ## the default experiment: results/embedded/report/index.html
	snakemake --cores $(CORES) $(PROFILE_ARGS)

full: $(READY)  ## the large experiment: 11 datasets, every method (about two hours on two cores)
	snakemake --cores $(CORES) --configfile config/embedded_full.yaml $(PROFILE_ARGS)

environment: $(READY)  ## only the environment, in .venv

clean:  ## delete everything that is generated, but not the environment
	rm -rf results/*/ work logs

##@ To develop it
test: $(DEV_READY)  ## the fast tests
	python -m pytest -m "not slow" -n 2 --dist worksteal --cov=cpt --cov-report= --cov-fail-under=90

slow: $(DEV_READY) $(DOCS_READY)  ## the workflow end to end; the tests of a file share what they run, and SLURM's ports
	python -m pytest -m slow -n 4 --dist loadfile --no-loadscope-reorder  # more than two cores: they wait more than they compute

test-python:  ## the fast tests on another Python, in .venv-PY: make test-python PY=3.13
	$(MAKE) test VENV=.venv-$(PY) PYTHON=python$(PY)

test-oldest: $(OLDEST)/.ready  ## the fast tests with the oldest dependencies that pyproject.toml allows, in .venv-oldest
	$(OLDEST)/bin/python -m pytest -m "not slow" -n 2 --dist worksteal

dist: $(DEV_READY)  ## the wheel and the source archive, in dist
	python -m build --outdir dist

lint: $(DEV_READY)  ## format, style, spelling, types, the Snakefile, known vulnerabilities, secrets
	ruff check .
	ruff format --check .
	codespell
	mypy
	snakefmt --check Snakefile workflow/Snakefile rules
	snakemake --lint
	python envs/audit.py

bench: $(DEV_READY)  ## speed and memory against the naive way, about half an hour on a quiet machine
	python -m benchmarks $(BENCH_ARGS)

gpu-check: $(DEV_READY)  ## numerics, golden cases, waits, steps, kernels and a small experiment on a GPU (8 minutes)
	python -m benchmarks.gpu --out results/benchmarks/gpu.json

generated: $(DEV_READY)  ## write workflow/schemas and docs/methods.md anew from the code
	cpt schema
	cpt methods --sheet docs/methods.md
	python docs/write_numbers.py

tiny-clip: $(READY)  ## rebuild the shipped tiny CLIP from nothing (about 6 minutes)
	cpt pretrain

worlds: $(READY) $(MODELS:%=work/tiny_clip/%/recipe.json)  ## three tiny CLIPs of both generated worlds, their experiments, results/worlds.md
	for file in config/worlds.yaml config/worlds/*.yaml; do snakemake --cores $(CORES) --configfile $$file $(PROFILE_ARGS) || exit 1; done
	cpt across results/worlds_*/ --format md >results/worlds.part && mv results/worlds.part results/worlds.md
	cpt across results/worlds_*/

work/tiny_clip/%/recipe.json: | $(READY)
	cpt pretrain --world $(word 1,$(subst -s, ,$*)) --seed $(word 2,$(subst -s, ,$*)) --output work/tiny_clip/$*

docs: $(DOCS_READY)  ## the documents as a site, site/index.html; a broken link is an error
	$(MKDOCS) build

docs-serve: $(DOCS_READY)  ## the same on http://127.0.0.1:8000, and again after every change
	$(MKDOCS) serve --livereload --no-strict

dev: $(DEV_READY)  ## only the environment, with the tools for tests and lint

$(READY): pyproject.toml envs/requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cpt needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r envs/requirements.txt
	$(PIP) --no-deps -e .
	touch $(READY)

$(DEV_READY): $(READY) envs/requirements-dev.txt
	$(PIP) -r envs/requirements-dev.txt
	touch $(DEV_READY)

$(OLDEST)/.ready: pyproject.toml envs/requirements-dev.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(OLDEST)/bin/uv pip compile --quiet --resolution lowest-direct pyproject.toml --extra onnx --extra tensorboard --extra transformers \
		--output-file $(OLDEST)/oldest.txt  # without slurm, whose plugin needs a newer numpy
	grep -vE '^(-r|transformers)' envs/requirements-dev.txt >$(OLDEST)/tools.txt
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python -r $(OLDEST)/oldest.txt -r $(OLDEST)/tools.txt
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --no-deps --editable .
	touch $@

$(DOCS_READY): $(READY) envs/requirements-docs.txt
	$(PIP) -r envs/requirements-docs.txt
	touch $(DOCS_READY)
