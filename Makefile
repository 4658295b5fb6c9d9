# `make` or `make help` lists what there is. A target's one-line comment after ## is what help says of it,
# and a line that starts with ## describes a setting, given as in `make up APP_PORT=8001` or in the environment.

## APP_PORT=8000           Port of the app.
## AGENT_PORT=9101         Port of the agent: metrics, health, state.
## PROMETHEUS_PORT=9090    Port of Prometheus.
## ALERTMANAGER_PORT=9093  Port of Alertmanager.
## TUNER_PORT=9102         Port of the tuner: what it decided, its metrics, its webhook.
## GRAFANA_PORT=3000       Port of Grafana, in containers.
## BIND_ADDRESS=127.0.0.1  Address that the app and Grafana are published on, in containers.
## TLS_PORT=8443           Port of the app by HTTPS, with compose.tls.yml.
## REPLICAS=1              Containers of the app.
## APP_CPUS=1.0            Cores that each of them may use.
## APP_MEMORY=768m         Memory that each of them may use.
## COMPOSE_FILE=           Compose files instead of docker-compose.yml and compose.local.yml, joined by colons.
## DOCKER_SOCKET=/var/run/docker.sock  The Docker daemon's socket, if `make up` does not find it.
## DOCKER_GID=0            The group of that socket, if `make up` does not find it.
## ANNOTATED_GRAFANA_URL=http://grafana:3000  Grafana that the profile `annotations` writes to, as its container finds it.
## LOAD_SECONDS=600        How long the profile `load` sends requests.
## LOAD_CLIENTS=4          How many clients it sends them from.
## MODE=auto               containers, native, or auto: containers where a Docker daemon answers.
## RUN_DIR=.run            Where native state lives: logs, process records, data.
## TRAFFIC_SECONDS=60      How long sample traffic is sent; 0 sends a few requests only.
## FOLLOW=1                0 makes `make logs` end instead of going on with what comes.
## SIGHT_WRITE=           1 makes `make sight` write what it saw into the docs.
## TEST_JOBS=3            How many tests run at a time, but for those that measure.
## PYTHON=                 Python 3.11 to 3.13 for .venv, if not the first one found.

.DEFAULT_GOAL := help
SHELL := /bin/sh
PROGRAM := ./scripts/python.sh
VENV := .venv/bin
COMPILE := $(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	pyproject.toml

.PHONY: help setup up down status logs traffic test test-compose sight prove prove-tuning demo-tuning bench bench-overhead bench-scrape check format docs dashboards pictures grafana slo requirements clean

help: ## List the targets and the settings
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
	@echo
	@sed -n 's/^## /  /p' Makefile

setup: ## Make .venv with everything pinned, unless it is there already
	@$(PROGRAM) -m scripts.venv

up: ## Run everything, in containers or natively, and show where it is
	@$(PROGRAM) -m scripts.sightline up

down: ## Stop everything that `make up` started
	@$(PROGRAM) -m scripts.sightline down

status: ## Say what runs, and where
	@$(PROGRAM) -m scripts.sightline status

logs: ## Show the end of all logs, and what comes
	@$(PROGRAM) -m scripts.sightline logs

traffic: ## Send sample requests for TRAFFIC_SECONDS
	@$(PROGRAM) -m scripts.sightline traffic

test: setup ## Install what the tests need, and run them all; ARGS is passed to pytest
	@$(PROGRAM) -m scripts.packages
	$(VENV)/python -m pytest -n $(or $(TEST_JOBS),3) --dist loadfile -m "not alone" $(ARGS) || [ $$? = 5 ]
	$(VENV)/python -m pytest -m alone $(ARGS) || [ $$? = 5 ]

test-compose: setup ## Run the whole compose file on stand-ins for its images: Debian, as root
	@$(PROGRAM) -m scripts.packages containers
	$(VENV)/python -m pytest tests/compose $(ARGS)

sight: setup ## See it all on live servers: causes, worker classes, saturation; prints the tables that the docs show
	@$(PROGRAM) -m scripts.packages
	SIGHT_WRITE=$(SIGHT_WRITE) $(VENV)/python -m pytest tests/sight $(ARGS)

prove: setup ## See each alert fire for its fault, and write docs/alerts.md; ARGS names scenarios
	@$(PROGRAM) -m scripts.packages
	$(VENV)/python -m tests.prove $(ARGS)

prove-tuning: setup ## See the tuner at work in each of its scenarios, and write docs/tuning.md; ARGS names scenarios
	@$(PROGRAM) -m scripts.packages
	$(VENV)/python -m tests.prove_tuning $(ARGS)

demo-tuning: ## Send a load that waits to what `make up` runs, and show what the tuner makes of it
	@$(PROGRAM) -m scripts.demo_tuning

bench: setup ## Measure everything, and write the tables and pictures
	$(VENV)/python -m bench all

bench-overhead: setup ## Measure what a request costs, beside the usual libraries
	$(VENV)/python -m bench overhead

bench-scrape: setup ## Measure what a scrape costs, beside prometheus_client's
	$(VENV)/python -m bench scrape

check: setup ## Check style, types, the arrows between modules, and the docs
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy -p observability -p app -p scripts -p dashboards -p bench
	$(VENV)/lint-imports
	$(VENV)/python -m scripts.docs --check
	$(VENV)/python -m scripts.links
	$(VENV)/python -m dashboards.build --check
	$(VENV)/python -m scripts.slo --check

format: setup ## Put the code into the one format, and fix what ruff can fix
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

docs: setup ## Write the reference pages anew, from the code
	$(VENV)/python -m scripts.docs

dashboards: setup ## Write the dashboards' JSON anew, from their builders
	$(VENV)/python -m dashboards.build

grafana: ## Run a part of `python -m observability grafana`, as ARGS says: make grafana ARGS="sync --dry-run"
	@$(PROGRAM) -m scripts.venv grafana
	@.venv-grafana/bin/python -m observability grafana $(ARGS)

pictures: setup ## Run live servers into trouble, and draw the dashboards of it for docs/images; needs npm and Chromium
	@$(PROGRAM) -m scripts.packages
	$(VENV)/python -m scripts.pictures $(ARGS)

slo: setup ## Write Prometheus' rules for the service level objectives anew, from monitoring/slo.yml
	$(VENV)/python -m scripts.slo

requirements: setup ## Pin what pyproject.toml asks for, with hashes
	$(COMPILE) -o requirements.txt
	$(COMPILE) --group dev -c requirements.txt -o requirements-dev.txt
	$(COMPILE) --extra grafana -c requirements.txt -o requirements-grafana.txt

clean: ## Stop everything, and remove its data and the tools' caches
	@$(PROGRAM) -m scripts.sightline clean
