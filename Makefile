# `make demo` and `make test` work on any machine with Python 3.11, make and gcc.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A network of a few thousand weights is slower on two threads than on one.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: infra demo test test-system test-long setup dev check fix preview serve golden clean

demo: setup ## the full life cycle on a synthetic IHC set, then the service on port 8000
	$(BIN)/unetops demo $(DEMO)

test: dev ## the test suite, in parallel
	$(TESTS) -n 2 -m "not system and not long and not browser"

test-system: dev ## real servers, a real browser, the real Pulumi engine, a real boot
	tests/system/install.sh
	tests/system/install-guest.sh
	$(TESTS) -n 2 --dist loadfile --no-loadscope-reorder -m "system or browser" --timeout=900

test-long: dev ## many kills and full trainings; not in CI
	$(TESTS) -m long --timeout=0

setup: $(VENV)/.setup ## only the environment
dev: $(VENV)/.dev

# A CPU build of torch already installed in .venv satisfies the lock and is kept.
$(VENV)/.setup: pyproject.toml setup.py dataset_rules/pixels/_unfilter.c requirements.lock
	@echo "== environment in $(VENV) (some minutes: torch is large)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.setup
	@echo "== tools for tests in $(VENV)"
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[dev]'
	@touch $@

$(VENV)/.infra: pyproject.toml requirements.lock
	@echo "== Pulumi's packages in $(VENV)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c requirements.lock -e '.[infra]'
	@touch $@

check: dev ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: dev ## format and safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

infra: $(VENV)/.infra ## only what `pulumi up` needs

preview: infra ## what `pulumi up` would do to the dev stack
	pulumi preview --stack dev

serve: setup ## the service on http://127.0.0.1:8000
	$(BIN)/unetops serve

golden: dev ## rewrite the golden files for review
	GOLDEN=1 $(TESTS) -m golden

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
