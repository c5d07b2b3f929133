PYTHON ?= python3.11
BIN := .venv/bin
JOBS ?= 2
# Blocks of the docs and the examples are made small in tests; UNCANNY_QUICK= runs them as they are written.
export UNCANNY_QUICK ?= 1

.PHONY: demo test docs lint format clean

demo: .venv/installed  ## install, then show the uncanny valley on real digits
	$(BIN)/uncanny demo

test: .venv/installed  ## all tests, and every code block of the docs; those on the shared networks skip where these are missing
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

docs: .venv/installed  ## the site, in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html"

lint: .venv/installed  ## style, types, and the layers of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and by exact version: the CPU build then satisfies everything that depends on torch
.venv/installed: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv uncanny-demo examples-out build/site .pytest_cache .mypy_cache .ruff_cache .hypothesis
