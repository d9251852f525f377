.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PARTS := $(patsubst %/pyproject.toml,%,$(wildcard libs/*/pyproject.toml services/*/pyproject.toml apps/*/pyproject.toml))

.PHONY: help install test check lock

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

test: install ## Run the tests
	$(BIN)/pytest

check: install ## Format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: ## Refresh the locks (needs uv; ARGS=--upgrade for newer versions)
	uv pip compile --quiet $(ARGS) $(PARTS:%=%/pyproject.toml) --group build --output-file requirements.lock
	uv pip compile --quiet $(ARGS) $(PARTS:%=%/pyproject.toml) --group build --group dev --constraint requirements.lock --output-file requirements-dev.lock
