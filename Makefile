# Everything is installed into .venv; nothing outside of this folder is touched.

VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
# -qq: errors only. What is imported is compiled then, once: to compile all of it beforehand takes a minute.
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt
# Where it is set, as in many containers, torch and Prefect would be compiled again by each process: 7 s of a core.
unexport PYTHONDONTWRITEBYTECODE
# The first of these that really starts (a version manager's shim may stand in for one that is not there).
PYTHON ?= $(shell for candidate in python3.11 python3.12 python3.13 python3 python; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$candidate" && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow chaos lint docs bench peers

help: ## say what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

setup: $(VENV)/dev.stamp ## install rml and what its development needs into .venv

demo: $(VENV)/demo.stamp ## learn handwritten digits, and the grey matter of a brain from slices and bricks (below demo/)
	$(BIN)/rml run data_samples/digits.json
	$(BIN)/python data_samples/make_brain.py
	$(BIN)/rml run data_samples/brain_slices.json
	$(BIN)/rml run data_samples/brain_bricks.json

test: $(VENV)/dev.stamp ## run the tests that take seconds
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist loadfile

test-slow: $(VENV)/dev.stamp ## run the tests that take longer (Debian has what they need in hdf5-tools, chromium, postgresql)
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 2 --dist loadgroup --no-loadscope-reorder \
		$$(grep -rl --include='test_*.py' 'mark\.slow' tests)

chaos: $(VENV)/dev.stamp ## kill what runs at 100 (KILLS) random moments, and see that nothing is lost
	$(BIN)/python tests/production/chaos.py --kills $(or $(KILLS),100)

lint: $(VENV)/dev.stamp ## check style, formatting, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/dev.stamp ## write docs/reference.md from the models of the run file
	$(BIN)/python docs/make_reference.py

bench: $(VENV)/dev.stamp $(PEERS)/peers.stamp ## measure rml side by side with what else there is
	$(BIN)/python benchmarks

peers: $(PEERS)/peers.stamp ## install what volumes are measured against into .venv-peers

# pip is the last thing that `python -m venv` makes: an environment that stopped halfway is made again.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "rml needs Python 3.11 or newer, and none was found." \
		"Name yours: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make virtual environments." \
		"On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/runtime.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing rml into $(VENV) (a minute or two, once)"
	@$(PIP) -e .
	@touch $@

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing rml and what holds a brain into $(VENV) (a minute or two, once)"
	@$(PIP) -e ".[demo]"
	@touch $(VENV)/runtime.stamp $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing rml and its development tools into $(VENV) (a few minutes, once)"
	@$(PIP) -e ".[demo,dev]"
	@touch $(VENV)/runtime.stamp $(VENV)/demo.stamp $@

$(PEERS)/peers.stamp: benchmarks/peers.txt constraints.txt | $(BIN)/pip
	@echo "installing what is measured against into $(PEERS) (a minute or two, once)"
	@$(BIN)/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -r benchmarks/peers.txt
	@touch $@
