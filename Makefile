# Each target does its own set-up: a virtual environment from the committed lock.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
ENGINERY := $(VENV)/bin/enginery

.PHONY: setup demo test test-fast coverage lint lint-text lint-types docs site bench table schema lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Enginery needs Python 3.11 or newer; set PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(ENGINERY) --store .demo/store demo

# Processes that share the tests (tests/suite.py): three on two cores, because many tests wait for servers.
CLAIMS := .pytest_cache/claims
test: PROCESSES := 1-3 2-3 3-3
test-fast: PROCESSES := 1-2 2-2
test-fast: SELECT := -m "not slow"

test test-fast: setup
	rm -rf $(CLAIMS) && mkdir -p $(CLAIMS)
	$(MAKE) --no-print-directory --keep-going --jobs 3 $(PROCESSES:%=pytest-%) SELECT='$(SELECT)'

pytest-%:
	$(RUN) pytest tests $(SELECT) --share=$(subst -,/,$*) --claims=$(CLAIMS)

# Of the product, by the tests that start no program: what runs in a child process is not counted.
coverage: setup
	$(RUN) pytest tests -m "not slow" --cov --cov-report=term

lint: setup
	$(MAKE) --no-print-directory --keep-going --jobs 2 lint-types lint-text

lint-types:
	$(RUN) mypy

lint-text:
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) codespell_lib

# Reference pages from the code, console sessions as the commands print today.
docs: setup
	$(RUN) tests.docs

site: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

bench: setup
	$(RUN) tests.benchmarks

table: setup
	$(RUN) tests.benchmarks.table

schema: setup
	$(RUN) recipes.json_schema > recipes/recipe.schema.json.new
	mv recipes/recipe.schema.json.new recipes/recipe.schema.json

lock:
	rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet -e '.[dev]' setuptools wheel
	.lock-venv/bin/pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//' > requirements.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) .demo .bench .pytest_cache build *.egg-info
