# make run   sets up what serves, and serves; make test   sets up the rest, and tests.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
INSTALLED := $(VENV)/.installed
# Builds the package in place. Python 3.12 and later put no setuptools into a virtual environment,
# and building in isolation would fetch one each time.
SETUPTOOLS := setuptools==82.0.0
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input
# One line that counts the packages on a terminal, one for every ten elsewhere.
COUNT = awk -v all=$$(grep -c '==' $(1)) -v terminal=$$([ -t 1 ] && echo 1 || echo 0) \
	'/^(Collecting|Requirement already satisfied: [^ ]+==)/ \
	{ n += 1; if (terminal) printf "\r  %d of %d packages", n, all; else if (n % 10 == 0) print "  " n " of " all " packages"; fflush() } \
	/^Installing collected/ { printf "%s  unpacking them\n", terminal ? "\r" : ""; fflush() } END { if (terminal) print "" }'
.DEFAULT_GOAL := help

.PHONY: help setup run test test-failed test-unit coverage check lint types wheel lock bench locust perf-analyzer clean

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with everything in it (does nothing the second time)

$(RUNS): pyproject.toml requirements/runtime.txt
	@$(PYTHON) -c 'import sys; v=sys.version_info[:2]; sys.exit(0 if (3,11)<=v<=(3,13) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.12 run" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what serves into $(VENV)"
	@$(PIP) --progress-bar off -r requirements/runtime.txt $(SETUPTOOLS) | $(call COUNT,requirements/runtime.txt)
	@$(PIP) --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/gateway setup-triton
	@touch $@

$(INSTALLED): $(RUNS) requirements/dev.txt
	@echo "Installing what tests and measures into $(VENV)"
	@$(PIP) --progress-bar off -r requirements/dev.txt | $(call COUNT,requirements/dev.txt)
	@touch $@

# With a terminal, the gateway gets a process group of its own (set -m), so that Ctrl-C reaches it
# and not make: it stops in order and make ends with its exit code, 0.
run: $(RUNS) ## Serve on http://127.0.0.1:3000 with the demo model
	@if [ -t 0 ]; then set -m; fi; $(BIN)/python -m gateway serve --demo; exit $$?

END_TO_END := tests/contract tests/integration tests/faults

# All three parts run, whatever fails before, so that one run names every failure.
test: setup ## Run every test: side by side what can be, then the rest
	@failed=0; \
	$(BIN)/python -m pytest -n auto --dist loadfile tests/unit tests/architecture || failed=1; \
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not alone" $(END_TO_END) || failed=1; \
	$(BIN)/python -m pytest -m alone $(END_TO_END) || failed=1; \
	exit $$failed

test-failed: setup ## Run the files with what failed last time once more, one after the other
	@files=$$($(BIN)/python -m tests.failed_files) && $(BIN)/python -m pytest $$files

test-unit: setup ## Run what needs no server: under a minute
	$(BIN)/python -m pytest -n auto -m "not slow and not postgres" tests/unit tests/architecture

coverage: setup ## Run every test and show which lines of gateway/ none of them reached
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: lint types test ## Lint, types and tests

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy, strict
	$(BIN)/mypy

wheel: setup ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

lock: setup ## Pin the newest versions that pyproject.toml admits
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-options --extra postgres --extra otel --extra oidc --output-file requirements/runtime.txt pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-options --all-extras --constraint requirements/runtime.txt --output-file requirements/dev.txt pyproject.toml

bench: setup ## Measure the gateway beside other servers; ARGS=--quick for a look
	$(BIN)/python -m perf.bench $(ARGS)

locust: setup ## Mixed users against a gateway that runs (HOST=http://127.0.0.1:3000)
	$(BIN)/locust -f perf/locustfile.py --headless -u 20 -r 20 -t 1m --only-summary --host $${HOST:-http://127.0.0.1:3000} $(ARGS)

perf-analyzer: setup ## NVIDIA's perf_analyzer straight against Triton
	$(BIN)/python -m perf.perf_analyzer $(ARGS)

clean: ## Remove .venv, caches and what was built, keep var/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist .coverage
