# Common commands. `make help` lists the targets. ARGS passes overrides: make train ARGS="schedule=linear".

PYTHON ?= python3
ARGS ?=
N ?= 50
SEED ?= 0
BIN := .venv/bin
STAMP := .venv/.installed
TEST_STAMP := .venv/.installed-test
# Python compiles what is imported, at its first import. A download that breaks off continues where it was.
PIP := $(BIN)/python -m pip install --no-compile
export PIP_RESUME_RETRIES := 20
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help env test-env train sample evaluate report doctor data-check test test-all lint bench trilemma verify-resume chaos clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

env: $(STAMP)  ## create the environment .venv for training, sampling and evaluation, if there is none

test-env: $(TEST_STAMP)  ## add what only tests, benchmarks and `make lint` need

$(STAMP) $(TEST_STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d; try make PYTHON=python3.12" % v[:2])'
	@$(if $(wildcard $(STAMP)),,echo "make $(or $(MAKECMDGOALS),env): first installs PyTorch and 100 packages in .venv, once; 2 to 5 minutes, most of it"; \
		echo "downloads (2 GB, with the libraries for NVIDIA GPUs). If it is interrupted, the same command continues.")
	$(PYTHON) -m venv .venv
	$(PIP) --quiet --upgrade pip
	$(PIP) torch torchvision
	$(PIP) --quiet --editable '.$(if $(filter $(TEST_STAMP),$@),[dev])'
	@touch $(STAMP) $@

train: env  ## train, by default on 5,000 MNIST digits: about 4 minutes on 2 CPU cores
	@$(if $(ARGS),,echo "training on 5,000 digits: about 4 minutes on 2 CPU cores; make train ARGS=max_minutes=2 trains for 2 minutes")
	$(BIN)/python train.py $(ARGS)

sample: env  ## generate images with the latest checkpoint, or make sample ARGS="ckpt=PATH"
	$(BIN)/python sample.py $(if $(findstring ckpt=,$(ARGS)),,ckpt=latest) $(ARGS)

evaluate: env  ## evaluate 1,000 samples of the latest checkpoint, or make evaluate ARGS="ckpt=PATH metric=fid"
	$(BIN)/python evaluate.py $(if $(ARGS),$(if $(findstring ckpt=,$(ARGS))$(findstring images=,$(ARGS)),,ckpt=latest),ckpt=latest metric=all num_samples=1000) $(ARGS)

report: env  ## write an HTML page that compares the runs in runs/, or make report ARGS="runs/A runs/B --out page.html"
	$(BIN)/python -m ddpm report $(if $(ARGS),$(ARGS),runs)

doctor: env  ## analyze and plot a noise schedule: make doctor ARGS="schedule=linear T=100"
	$(BIN)/python -m ddpm check-schedule $(ARGS)

data-check: env  ## look at a data set before training: make data-check ARGS="data=folder data.source.root=FOLDER"
	$(BIN)/python -m ddpm check-data $(ARGS)

test: test-env lint  ## check style and types, run the tests: make test ARGS="-k ddim"
	$(BIN)/python -m pytest $(ARGS)

test-all: test-env lint  ## the same with the slow tests: schedulers, sharding, two nodes, killed commands
	$(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

lint: test-env  ## check the style of all code and the types of the mathematics
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: test-env  ## compare speed with diffusers and denoising-diffusion-pytorch; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.run $(ARGS)

verify-resume: env  ## test that a killed run resumes exactly, with your settings: make verify-resume ARGS="experiment=..."
	$(BIN)/python -m ddpm verify-resume $(ARGS)

chaos: test-env  ## kill short runs N times at random moments and count lost steps: make chaos N=200
	$(BIN)/python tests/chaos.py $(N) $(SEED)

clean:  ## remove the environment and caches, but not runs/
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

trilemma: test-env  ## train and measure what docs/trilemma.md compares, at equal minutes: make trilemma ARGS="--seeds 1"
	$(BIN)/python -m benchmarks.trilemma $(ARGS)
