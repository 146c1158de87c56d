# `make run` and `make test` need python3 (3.11 or newer), pip and make; they set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.stamp-run
TEST_STAMP := $(VENV)/.stamp-dev
INPUTS := pyproject.toml constraints.txt
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test check format bench readme results clean

help:
	@echo 'make run     set up, then compare the pocket model before and after STIC on seven benchmarks'
	@echo 'make test    set up, then run the tests'
	@echo 'make check   ruff, mypy --strict, import-linter'
	@echo 'make format  let ruff put the code in order'
	@echo 'make bench   measure this program against its rivals'
	@echo 'make readme  regenerate the output shown in README.md'
	@echo 'make results regenerate results/pocket (three seeds, every control; about 15 minutes)'
	@echo 'make clean   remove .venv'

# A venv without pip (Debian's python3 without ensurepip) is made usable through the system's pip.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'python 3.11 or newer is needed: make run PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(PYTHON) -m pip install --quiet --user virtualenv \
	  && $(PYTHON) -m virtualenv --quiet $(VENV); }

$(RUN_STAMP): $(INPUTS) | $(BIN)/python
	@echo 'installing into $(VENV) (once; a few minutes)'
	$(PIP_INSTALL) --editable .
	@touch $@

$(TEST_STAMP): $(INPUTS) | $(BIN)/python
	@echo 'installing into $(VENV), with what the tests need (once; a few minutes)'
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(RUN_STAMP)

run: $(RUN_STAMP)
	$(BIN)/stic-eval run --method stic $(ARGS)

test: $(TEST_STAMP)
	$(BIN)/python -m pytest -n auto $(ARGS)

check: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(TEST_STAMP)
	$(BIN)/python -m bench

readme: $(TEST_STAMP)
	$(BIN)/python -m bench.readme

# Three training seeds of STIC and its controls on the test rows, and what each stage's adapter sees.
results: $(TEST_STAMP)
	$(BIN)/stic-eval run --method sft --method positive_only --method stic_stage1 --method stic \
	  --seed 0 --seed 1 --seed 2 --output results/pocket $(ARGS)
	$(BIN)/python -m bench.descriptions --out results/pocket

clean:
	rm -rf $(VENV) build *.egg-info
