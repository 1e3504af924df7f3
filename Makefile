# `make repro` and `make test` each work as the first command on a fresh clone. `make help` lists the rest.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.pesfit-installed
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip --disable-pip-version-check

# What pip brings along with a CUDA build of torch; the lock leaves it to pip.
WITH_TORCH := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
  nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
  nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx

# The first Python on PATH that is supported; `make PYTHON=/path/to/python3.12` chooses another.
SUPPORTED := import sys, platform; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12) and platform.system() == "Linux"))
PYTHON ?= $(shell for p in python3 python3.11 python3.12; do $$p -c '$(SUPPORTED)' 2>/dev/null && { command -v $$p; break; }; done)

# A file of tests stays in one process, so that it makes its fixtures once; files start in the order of the folders.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONNOUSERSITE := 1

.PHONY: help repro test test-fast lint deps bench tensorboard env lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1|\2/' | column -t -s '|'

repro: $(STAMP) ## run what has changed of the pipeline (dvc repro)
	@dvc repro

test: $(STAMP) ## run the tests, the end-to-end run among them
	@python -m pytest $(SIDE_BY_SIDE)

test-fast: $(STAMP) ## run the tests that take less than about 3 s each
	@python -m pytest $(SIDE_BY_SIDE) -m "not slow"

lint: $(STAMP) ## style, spelling, types, import order, dependencies of stages
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports
	@codespell
	@python stages/_deps.py --check

deps: $(STAMP) ## write into dvc.yaml which modules each stage uses
	@python stages/_deps.py

bench: $(STAMP) ## measure against what one would use instead; ONLY="cluster fit" runs some
	@python benchmarks/run.py $(ONLY)

tensorboard: $(STAMP) ## watch runs in the browser
	@tensorboard --logdir outputs/runs

env: $(STAMP) ## make or bring up to date the environment in .venv

$(STAMP): requirements.lock pyproject.toml Makefile
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null; then \
	  found="$$("$(if $(PYTHON),$(PYTHON),python3)" -c 'import platform; print(platform.python_version(), "on", platform.system())' 2>/dev/null || echo none)"; \
	  echo "pesfit needs Python 3.11 or 3.12 on Linux; found $$found. Name one with: make $(or $(MAKECMDGOALS),repro) PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@echo "Installing into $(VENV) with $(PYTHON), once; 1 to 2 minutes."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@sed -nE 's/^([A-Za-z0-9._-]+==[^ ;]+).*/\1/p' requirements.lock > $(VENV)/constraints.txt
	@echo "  1 of 3: torch and what its build needs"
	@$(PIP) install -qq --no-compile --constraint $(VENV)/constraints.txt $(TORCH)
	@echo "  2 of 3: all else, as locked ($$(wc -l < $(VENV)/constraints.txt) packages)"
	@$(PIP) install -qq --no-compile --no-deps --require-hashes --requirement requirements.lock
	@echo "  3 of 3: pesfit"
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $@

lock: $(STAMP) ## resolve requirements.in anew into requirements.lock (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-annotate --no-header \
	  $(addprefix --no-emit-package ,$(WITH_TORCH)) --upgrade requirements.in --output-file requirements.lock

clean: ## remove data, outputs and scratch; keeps .venv and the DVC and download caches
	@rm -rf data/raw data/arrow data/parameterized data/clustered data/splits data/minima
	@find outputs -mindepth 1 -maxdepth 1 ! -name metrics -exec rm -rf {} + 2>/dev/null || true
