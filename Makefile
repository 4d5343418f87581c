# Everything a newcomer or a CI machine types. Needs Python >= 3.11 with venv, git and make; it installs into .venv alone.

PYTHON ?= python3
VENV   ?= .venv
WORKERS ?= auto

# The CPU build never brings CUDA along. With an NVIDIA GPU: make clean setup TORCH=torch==2.13.0
TORCH  ?= torch==2.13.0$(if $(filter Linux,$(shell uname -s)),+cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint requirements/constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo oracles test trials lint fix bench docs lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.12 chooses the interpreter, TORCH=torch==2.13.0, after make clean, the CUDA build."

setup: $(VENV)/.dev ## Create .venv with the pinned packages, for development

demo: $(VENV)/.core ## The whole life of a BERT in miniature, offline, in minutes
	$(BIN)/bertwright demo

test: $(VENV)/.dev oracles ## Run every test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

trials: $(VENV)/.dev ## Kill training many times, also inside a save, and see that every run ends the same
	OMP_NUM_THREADS=1 TRIALS=20 $(BIN)/pytest -s -k random_moments --timeout 3600 tests/e2e/test_resume.py

oracles: $(VENV)/.tensorflow $(VENV)/.transformers4 $(VENV)/.conlleval ## Install what some tests compare with, apart from all else

lint: $(VENV)/.dev ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## Mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.dev ## Measure speed on this machine; the figures land in benchmarks/results
	$(BIN)/python benchmarks/run_all.py

docs: $(VENV)/.dev ## Run the documentation's commands and paste what they print
	$(BIN)/python tests/docs/paste.py

lock: ## Resolve every dependency anew and rewrite requirements/constraints.txt
	$(PYTHON) requirements/lock.py

clean: ## Remove .venv, caches and the demo's output
	rm -rf $(VENV) bertwright-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make a second call instant, until the project file or the pins change.
$(VENV)/.core: pyproject.toml requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Bertwright needs Python 3.11 or newer: make ... PYTHON=python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV); this takes a minute or a few."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) "$(TORCH)" hatchling editables 2>/dev/null || $(PIP) "$(TORCH)" hatchling editables --extra-index-url $(TORCH_INDEX)
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@$(PIP) --no-build-isolation --editable ".[dev]"
	@touch $@

# TensorFlow (1.6 GB) and an older transformers are oracles of the tests: beside our packages, never among them.
# Where one cannot be installed, its tests are skipped and say so.
ORACLES = $(VENV)/oracles

$(VENV)/.tensorflow: requirements/tensorflow.txt | $(VENV)/.dev
	@echo "Installing TensorFlow into $(ORACLES)/tensorflow, for the tests alone."
	@{ $(PYTHON) -m venv --clear $(ORACLES)/tensorflow && $(ORACLES)/tensorflow/bin/python -m pip install -qq \
	     --disable-pip-version-check --only-binary :all: --requirement $<; } || \
	  { rm -rf $(ORACLES)/tensorflow; echo "TensorFlow cannot be installed here: its tests are skipped" >&2; }
	@touch $@

$(VENV)/.transformers4: requirements/transformers4.txt | $(VENV)/.dev
	@rm -rf $(ORACLES)/transformers4
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --target $(ORACLES)/transformers4 \
	   --requirement $< || \
	  { rm -rf $(ORACLES)/transformers4; echo "transformers 4 cannot be installed here: its tests are skipped" >&2; }
	@touch $@

# conlleval.pl, the scorer of CoNLL-2000 and 2003, lies in the source of seqeval.
SEQEVAL = seqeval==1.2.2
$(VENV)/.conlleval: | $(VENV)/.dev
	@rm -rf $(ORACLES)/conlleval && mkdir -p $(ORACLES)/conlleval
	@{ $(BIN)/python -m pip install -qq --no-deps $(SEQEVAL) && \
	   $(BIN)/python -m pip download -qq --no-deps --no-binary :all: --dest $(ORACLES)/conlleval $(SEQEVAL) && \
	   tar -xzf $(ORACLES)/conlleval/*.tar.gz -C $(ORACLES)/conlleval --strip-components 2 --wildcards '*/tests/conlleval.pl'; } || \
	  { rm -rf $(ORACLES)/conlleval; echo "conlleval.pl cannot be had here: its tests are skipped" >&2; }
	@touch $@
