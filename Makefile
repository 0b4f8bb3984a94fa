# Everything a newcomer needs: Python 3.11 and make. `make run` and `make test` set up what they use.
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LOCKS := ops/requirements
READY := $(VENV)/.ready
# Tests start brokers and workers of their own, and wait for them as much as they compute.
TESTS_AT_ONCE ?= 2

.PHONY: help run test lint format bench faults fuzz lock clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): $(LOCKS)/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "pixguard needs Python 3.11, found " + sys.version.split()[0] + ": install it, or run: make PYTHON=/path/to/python3.11 ...")'
	@echo "Setting up $(VENV) (once, a minute or two: 1.5 GB)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on --require-hashes -r $(LOCKS)/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY) ## Broker, simulated traffic, workers, web view and decisions, until Ctrl-C
	@$(BIN)/pixguard run

test: $(READY) lint ## Lint, types, architecture, and all tests (starts its own broker)
	@$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder

lint: $(READY) ## Ruff, mypy and the import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## Full load, latency and recovery against stock Faust, and what each part costs
	@$(BIN)/pixguard bench

faults: $(READY) ## 2,000 simulated runs and 100 on the real broker, with seeded crashes; an hour
	@PYTHONPATH=tests $(BIN)/python -m faults simulate --runs 2000 --seed 1 --jobs 2
	@PYTHONPATH=tests $(BIN)/python -m faults cluster --runs 100 --seed 1 --jobs 2

fuzz: $(READY) ## Ten million mutated messages through both decoders; a quarter of an hour
	@PYTHONPATH=tests $(BIN)/python -m fuzz --messages 10000000 --seed 1 --jobs 2

lock: $(READY) ## Pin the newest dependencies that pyproject.toml admits
	@$(BIN)/uv pip compile --quiet --no-header --generate-hashes --python-version 3.11 pyproject.toml -o $(LOCKS)/worker.lock
	@$(BIN)/uv pip compile --quiet --no-header --generate-hashes --python-version 3.11 --all-extras pyproject.toml -o $(LOCKS)/dev.lock

clean: ## Remove the virtual environment, caches and the local broker's data
	@rm -rf $(VENV) .pixguard .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
