.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PARTS := $(patsubst %/pyproject.toml,%,$(wildcard libs/*/pyproject.toml services/*/pyproject.toml apps/*/pyproject.toml))

.PHONY: help install demo run test check bench docs lock

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

install: .venv/parts ## Set everything up in .venv

.venv/locked: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit("Rapport needs Python 3.11+: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@echo "Installing the locked dependencies into .venv ..."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

.venv/parts: .venv/locked libs services apps $(PARTS:%=%/pyproject.toml)
	@echo "Installing Rapport's parts ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation $(PARTS:%=--editable %)
	@$(BIN)/pip --disable-pip-version-check check
	@touch $@

demo: install ## Play a day at a company through the real system
	$(BIN)/rapport demo $(ARGS)

run: install ## Run the whole system on port 8080 (ARGS="--data-dir D --port P")
	$(BIN)/rapport up $(ARGS)

test: install ## Run the tests (ARGS="-k NAME" for some)
	$(BIN)/pytest --numprocesses auto $(ARGS)

check: install ## Format, lint, types, layers, documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --quiet libs/common/tests/test_contract_documents.py tests

bench: install ## Measure, each against a named baseline in the same run (ARGS=NAME for one)
	$(BIN)/python -m benchmarks $(ARGS)

docs: install ## Generate the event documents
	$(BIN)/rapport schema export docs/events

lock: ## Refresh the locks (needs uv; ARGS=--upgrade for newer versions)
	uv pip compile --quiet $(ARGS) $(PARTS:%=%/pyproject.toml) --group build --output-file requirements.lock
	uv pip compile --quiet $(ARGS) $(PARTS:%=%/pyproject.toml) --group build --group dev --constraint requirements.lock --output-file requirements-dev.lock
