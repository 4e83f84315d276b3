# Each target sets up .venv by itself, with python3 and pip alone, and is quick when nothing changed.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check federation chaos bench bench-intake bench-recipe fuzz clean help

help:
	@echo "make demo   train three phantom hospitals; open runs/demo/report.html"
	@echo "make test   run the tests"
	@echo "make federation  enrol three phantom hospitals and train between real processes over TLS"
	@echo "make chaos  the same, killing server, sites and workers at random; prints its seed"
	@echo "make check  ruff, mypy --strict, import-linter"
	@echo "make bench  measure every performance claim beside its peers"
	@echo "make bench-intake  images a second by transfer syntax, and where the time goes"
	@echo "make bench-recipe  the trials behind stage 2's recipe, on real images; hours"
	@echo "make fuzz   20,000 damaged and hostile files; kill a preparation of 2,000 files ten times"
	@echo "make clean  remove .venv and caches; runs/ is kept"

demo: .venv/.demo
	$(BIN)/mamfed-simulate demo --out runs/demo

test: .venv/.dev
	$(BIN)/pytest

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

federation: .venv/.demo
	$(BIN)/python tests/federation/run_federation.py

chaos: .venv/.demo
	$(BIN)/python tests/federation/chaos.py

bench: .venv/.bench
	for script in $(filter-out benchmarks/recipe% benchmarks/worst%,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-intake: .venv/.bench
	$(BIN)/python benchmarks/intake_chain.py
	$(BIN)/python benchmarks/intake.py

bench-recipe: .venv/.bench
	$(BIN)/python benchmarks/recipe.py

fuzz: .venv/.dev
	$(BIN)/python tests/fault/fuzz_files.py --mutants 20000
	$(BIN)/python tests/fault/kill_prepare.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mamfed needs Python 3.11 or newer; try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[simulations]"
	@touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ .venv/.demo

.venv/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev,bench]"
	@touch $@ .venv/.dev .venv/.demo
