# Needs Python 3.11, 3.12 or 3.13 and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# What pytest is given, such as: make test ARGS='tests/detectors -k loop'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup check test chaos fuzz demo bench docs clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv (again only when the dependencies change)

# The stamp comes last: an interrupted installation is taken up again.
$(STAMP): pyproject.toml constraints.txt gateways/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
		echo "tripswitch needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)" >&2; \
		echo "Name another one, for example: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "Installing into .venv (about 1.5 GB and some minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[embedded,dev]' -e './gateways[demo,guard]'
	@touch $@

check: setup ## Lint, formatting, types and the direction of imports
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "Not formatted; try: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy --strict --no-error-summary
	@$(BIN)/mypy --strict --no-error-summary gateways/src
	@$(BIN)/lint-imports --no-logo

# Integration tests mostly wait, so two parts of them and all others run beside each other; kernels are compiled once,
# before.
INTEGRATION := $(wildcard tests/integration/test_*.py)
BESIDE := $(patsubst %,tests/integration/test_%.py,broker_away killswitch litellm moves)
OTHERS := $(filter-out tests/integration,$(patsubst %/,%,$(dir $(wildcard tests/*/conftest.py tests/*/test_*.py))))

test: check ## All checks, then all tests (against Apache Kafka where Java 17 and Maven are present)
ifeq ($(strip $(ARGS)),)
	@mkdir -p build
	@$(BIN)/python -c 'from streams.compiling import compile_kernels; from streams.policy import find_policy, read_policy; \
		compile_kernels(read_policy(find_policy(None)))'
	@$(BIN)/python -m pytest $(sort $(OTHERS)) > build/others.log 2>&1 & others=$$!; \
		$(BIN)/python -m pytest $(BESIDE) > build/beside.log 2>&1 & beside=$$!; \
		trap 'kill $$others $$beside 2>/dev/null' EXIT INT TERM; \
		$(BIN)/python -m pytest $(filter-out $(BESIDE),$(INTEGRATION)); failed=$$?; \
		wait $$beside || failed=$$?; cat build/beside.log; \
		wait $$others || failed=$$?; cat build/others.log; exit $$failed
else
	@$(BIN)/python -m pytest $(ARGS)
endif

# How many kills, 20 for each seed; ARGS=-x ends at the first seed that fails.
KILLS ?= 1000

chaos: setup ## Kill workers 1,000 times (KILLS=N) under attack; seeds and outcomes go to build/chaos.log
	@mkdir -p build
	@TRIPSWITCH_CHAOS_KILLS=$(KILLS) $(BIN)/python -m pytest tests/integration/test_chaos.py \
		-o log_file=build/chaos.log -o log_file_level=INFO $(ARGS)

# Seconds.
FUZZ_SECONDS ?= 60

fuzz: setup ## Fuzz the decoders and detectors for a minute (FUZZ_SECONDS=N), guided by coverage (Linux)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	@PYTHONPATH=. $(BIN)/python tests/fuzz/usage.py -max_total_time=$(FUZZ_SECONDS) $(ARGS)

demo: setup ## The whole system on this machine; a gateway is attacked before your eyes
	@$(BIN)/tripswitch demo

bench: setup ## Measure throughput, latency, memory and restore (half an hour; one part: ARGS=detect)
	@$(BIN)/python -m benchmarks $(ARGS)

docs: setup ## Render docs/kinds from the detectors' docstrings and policy.toml
	@$(BIN)/python -m streams.kinds

clean: ## Remove .venv, the caches and everything built
	@rm -rf .venv build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
