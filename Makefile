.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SBOM ?= build/sbom
SERVERS := $(PYTHON) deploy/local/servers.py
export RAPPORT_KAFKA_PORT ?= 9092
export RAPPORT_MONGODB_PORT ?= 27017
PARTS := $(patsubst %/pyproject.toml,%,$(wildcard libs/*/pyproject.toml services/*/pyproject.toml apps/*/pyproject.toml))

.PHONY: help install demo run test check bench chaos engine up up-local down servers servers-stop docs lock fuzz sbom

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

demo: install ## Play a day at a company through the real system (BUS=kafka: on the real servers)
ifeq ($(BUS),kafka)
	$(SERVERS) run -- sh -c '$(BIN)/rapport demo $(ARGS) --bus "kafka://$${RAPPORT_TEST_KAFKA:?is not there}" --store "$${RAPPORT_TEST_MONGODB:?is not there}"'
else
	$(BIN)/rapport demo $(ARGS)
endif

up-local: servers install ## Run a process per service on the real servers (ports 8101-8105)
	exec env RAPPORT_BUS=kafka://127.0.0.1:$(RAPPORT_KAFKA_PORT) \
	RAPPORT_STORE="mongodb://127.0.0.1:$(RAPPORT_MONGODB_PORT)/rapport?replicaSet=secantus&retryWrites=false" \
	$(BIN)/rapport up-local $(ARGS)

run: install ## Run the whole system on port 8080 (ARGS="--data-dir D --port P")
	$(BIN)/rapport up $(ARGS)

test: install ## Run the tests, on the real servers too where Java and Maven are (ARGS="-k NAME" for some)
	$(BIN)/python deploy/local/servers.py run -- $(BIN)/pytest --numprocesses auto --dist worksteal -rs $(ARGS)

check: install ## Format, lint, types, layers, documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --quiet -rs libs/common/tests/test_contract_documents.py $(wildcard tests/test_*.py)

bench: install ## Measure, each against a named baseline in the same run (ARGS=NAME for one)
	$(BIN)/python -m benchmarks $(ARGS)

chaos: install ## Run it under faults and hold it to its promises (LONG=1: an hour; SEED=N; ARGS)
	$(BIN)/python -m chaos --minutes $(if $(LONG),60,5) $(if $(SEED),--seed $(SEED)) --page docs/reliability-last-run.md $(ARGS)

fuzz: install ## Send each service 10,000 hostile requests (REQUESTS= how many, SEED= which, ARGS="-k NAME")
	RAPPORT_TEST_FUZZ=$(or $(REQUESTS),10000) RAPPORT_TEST_SEED=$(or $(SEED),1) \
	$(BIN)/pytest --numprocesses auto --dist worksteal -rs $(ARGS) tests/security/test_fuzzing.py

sbom: install ## Write the software bills of materials (CycloneDX) into build/sbom (SBOM=FOLDER)
	@mkdir -p $(SBOM)
	@for part in apps/standalone services/*; do \
		lock=$$part/requirements.lock; test -e $$lock || lock=requirements.lock; \
		$(BIN)/python -W ignore -m cyclonedx_py requirements --no-validate --output-reproducible --index-url file:. \
			--pyproject $$part/pyproject.toml --output-file $(SBOM)/$$(basename $$part).json $$lock || exit; \
	done

engine:
	@docker version >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 || \
		{ echo "No container engine with compose answers here: make up-local runs the same as processes." >&2; exit 1; }

up: engine install ## Run everything as containers, with gateway, Prometheus and Grafana
	@$(BIN)/python deploy/compose/trial_keys.py
	REVISION=$$(git rev-parse HEAD) docker compose up --build --wait $(ARGS)
	@$(BIN)/python deploy/compose/trial_keys.py --tell

down: engine ## Stop the containers; the data stays (ARGS=--volumes ends it, too)
	docker compose down $(ARGS)

servers: ## Fetch and start Kafka and MongoDB's protocol (RAPPORT_KAFKA_PORT, RAPPORT_MONGODB_PORT)
	@$(SERVERS) start

servers-stop: ## Stop what `make servers` started; the data stays
	@$(SERVERS) stop

docs: install ## Generate the documents of events and of HTTP
	$(BIN)/rapport schema export docs/events
	$(BIN)/rapport schema openapi deploy/compose/gateway/openapi.json

lock: ## Refresh the locks (needs uv; ARGS=--upgrade for newer versions)
	uv pip compile --quiet $(ARGS) $(PARTS:%=%/pyproject.toml) --group build --output-file requirements.lock
	uv pip compile --quiet $(ARGS) $(PARTS:%=%/pyproject.toml) --group build --group dev --constraint requirements.lock --output-file requirements-dev.lock
	for service in services/*; do \
		uv pip compile --quiet $(ARGS) $$service/pyproject.toml libs/common/pyproject.toml --group build --constraint requirements.lock --output-file $$service/requirements.lock || exit; \
	done
