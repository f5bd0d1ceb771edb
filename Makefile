# Every verb sets up what it needs. `make SET=cuda setup` takes the CUDA pins instead of the CPU ones.
SET := cpu
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(SET)
PINS := $(wildcard requirements/*.txt) requirements/fbgemm-cpu/pyproject.toml

.PHONY: help setup demo test check fix clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1 /p' Makefile | while read -r verb text; do printf '  make %-6s  %s\n' "$$verb" "$$text"; done

setup: $(READY) ## a virtual environment with exact pins in .venv

# Made anew when a pin changes: what a removed pin leaves behind is nobody's.
$(READY): $(PINS)
	@python=; for candidate in python3.11 python3; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "make: Multigate needs Python 3.11 or newer, as python3.11 or python3" >&2; exit 1; fi; \
	echo "Setting up $(VENV) with $$($$python --version) and requirements/$(SET).txt; this takes a minute or two, once." >&2; \
	rm -rf $(VENV) && $$python -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements/$(SET).txt -r requirements/dev.txt --config-settings editable_mode=compat --editable .
	@$(BIN)/python -m pip check
	@touch $@

demo: $(READY) ## raw logs of a synthetic shop to a ranked answer over HTTP
	@$(BIN)/multigate demo

# Two processes, one thread each: the files of tests are shared out, and none of them waits for the other's threads.
test: $(READY) ## every test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(READY) ## format, lint and types, changing nothing
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright

fix: $(READY) ## repair format, what the linter can, and the reference of the spec
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .
	@$(BIN)/python -m tools.spec_reference docs/spec.md

clean: ## remove the environment, runs and caches
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
