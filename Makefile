# Everything a user types. `make help` lists the targets; ARGS passes overrides on: make train ARGS="schedule=linear".

PYTHON ?= python3
ARGS ?=
N ?= 50
SEED ?= 0
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help env train sample evaluate report doctor test test-all lint bench verify-resume chaos clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

env: $(STAMP)  ## make the environment .venv, if there is none

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d; try make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check torch torchvision
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # on all cores, where pip takes one; a few files are not Python 3
	@touch $@

train: env  ## train, by default on the embedded MNIST: about 4 minutes on 2 CPU cores
	$(BIN)/python train.py $(ARGS)

sample: env  ## draw images from the latest checkpoint, or make sample ARGS="ckpt=PATH"
	$(BIN)/python sample.py $(if $(findstring ckpt=,$(ARGS)),,ckpt=latest) $(ARGS)

evaluate: env  ## measure 1,000 samples of the latest checkpoint, or make evaluate ARGS="ckpt=PATH metric=fid"
	$(BIN)/python evaluate.py $(if $(ARGS),$(if $(findstring ckpt=,$(ARGS))$(findstring images=,$(ARGS)),,ckpt=latest),ckpt=latest metric=all num_samples=1000) $(ARGS)

report: env  ## one page that compares the runs under runs/, or make report ARGS="runs/A runs/B --out page.html"
	$(BIN)/python -m ddpm report $(if $(ARGS),$(ARGS),runs)

doctor: env  ## examine and draw a noise schedule: make doctor ARGS="schedule=linear T=100"
	$(BIN)/python -m ddpm check-schedule $(ARGS)

test: env lint  ## style, types and tests: make test ARGS="-k ddim"
	$(BIN)/python -m pytest $(ARGS)

test-all: env lint  ## the slow tests too: schedulers, sharding, two nodes, kills of whole commands
	$(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

lint: env  ## style of all code, types of the mathematics
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: env  ## compare the speed with diffusers and denoising-diffusion-pytorch; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.run $(ARGS)

verify-resume: env  ## prove that a killed run loses nothing, on your settings: make verify-resume ARGS="experiment=..."
	$(BIN)/python -m ddpm verify-resume $(ARGS)

chaos: env  ## kill short runs N times at random moments and count what is lost: make chaos N=200
	$(BIN)/python tests/chaos.py $(N) $(SEED)

clean:  ## remove the environment and caches; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
