# Everything a newcomer needs: `make quickstart`, then `make test`. All of it happens inside .venv.
PYTHON ?= python3
JOBS ?= 1
TEST_JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_BROWSER := $(VENV)/.installed-browser

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-browser browser transformers-tests quality bench reproduce wheel clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1	/' | expand -t 24

quickstart: $(INSTALLED)  ## install, fine-tune the bundled checkpoint on the bundled clips, classify one wav
	$(BIN)/hf-audioformer quickstart

test: transformers-tests  ## run the tests, TEST_JOBS=2 files at a time
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses $(TEST_JOBS) --dist loadfile --no-loadscope-reorder --durations 15

test-browser: browser  ## test the demo in a headless Chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet -m browser tests/browser

browser: $(INSTALLED_BROWSER)  ## install what test-browser needs; Chromium from apt, as root
	tests/browser/install_chromium.sh

transformers-tests: $(INSTALLED_DEV)  ## fetch the common tests of the installed Transformers release
	$(BIN)/python tests/transformers_tests.py

quality: $(INSTALLED_DEV)  ## lint, format check, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED_DEV)  ## speed beside transformers.RoFormerModel and plain EncodecModel, as ratios
	$(BIN)/python -m benchmarks

reproduce: $(INSTALLED_DEV)  ## run what is left of benchmarks/experiments, JOBS=1 stages at a time; tables in runs/reproduce
	$(BIN)/python -m benchmarks.reproduce --jobs $(JOBS)

wheel: $(INSTALLED_DEV)  ## build dist/*.whl
	rm -rf dist build
	$(BIN)/python -m build --wheel --outdir dist .

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist *.egg-info .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): about 5 GB, a few minutes ..."
	$(PIP_INSTALL) --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(INSTALLED_BROWSER): $(INSTALLED_DEV)
	$(PIP_INSTALL) --retries 1 --timeout 10 --editable '.[dev,browser]'
	@touch $@
