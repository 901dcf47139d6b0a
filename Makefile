# make run   sets up and serves; make test   sets up and tests. Nothing else is needed.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Installed without their dependencies: pytriton pins numpy below 2, and only its binaries are used.
NO_DEPS := nvidia-pytriton==0.7.0 setuptools==82.0.0
.DEFAULT_GOAL := help

.PHONY: help setup run test check lint types lock bench locust perf-analyzer clean

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything in it (does nothing the second time)

$(STAMP): pyproject.toml requirements/dev.txt requirements/runtime.txt
	@$(PYTHON) -c 'import sys; v=sys.version_info[:2]; sys.exit(0 if (3,11)<=v<=(3,13) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.12 setup" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(NO_DEPS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# With a terminal, the gateway gets a process group of its own (set -m), so that Ctrl-C reaches it
# and not make: it stops in order and make ends with its exit code, 0.
run: setup ## Serve on http://127.0.0.1:3000 with the demo model
	@if [ -t 0 ]; then set -m; fi; $(BIN)/python -m gateway serve --demo; exit $$?

test: setup ## Run every test
	$(BIN)/python -m pytest

check: lint types test ## Lint, types and tests

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy, strict
	$(BIN)/mypy

lock: setup ## Pin the newest versions that pyproject.toml admits
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-options --output-file requirements/runtime.txt pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-options --extra dev --constraint requirements/runtime.txt --output-file requirements/dev.txt pyproject.toml

bench: setup ## Measure the gateway beside other servers; ARGS=--quick for a look
	$(BIN)/python -m perf.bench $(ARGS)

locust: setup ## Mixed users against a gateway that runs (HOST=http://127.0.0.1:3000)
	$(BIN)/locust -f perf/locustfile.py --headless -u 20 -r 20 -t 1m --only-summary --host $${HOST:-http://127.0.0.1:3000} $(ARGS)

perf-analyzer: setup ## NVIDIA's perf_analyzer straight against Triton
	$(BIN)/python -m perf.perf_analyzer $(ARGS)

clean: ## Remove .venv and caches, keep var/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
