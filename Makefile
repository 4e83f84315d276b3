# Each target sets up .venv by itself, with python3 and pip alone, and is quick when nothing changed.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check federation chaos bench bench-federation bench-intake bench-recipe fuzz clean help

help:
	@echo "make demo   train three phantom hospitals; open runs/demo/report.html"
	@echo "make test   run the tests"
	@echo "make federation  enrol three phantom hospitals and train between real processes over TLS"
	@echo "make chaos  the same, killing server, sites and workers at random; prints its seed"
	@echo "make check  ruff, mypy --strict, import-linter"
	@echo "make bench  measure beside the peers what fits in 15 minutes; writes docs/benchmarks.md"
	@echo "make bench-federation  rounds beside stock Flower, and up to 1,000 sites"
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

# What fits in a quarter of an hour; then the page. The other scripts run alone.
QUICK := network corruption batches aggregation wire intake startup

bench: .venv/.bench
	for name in $(QUICK); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python benchmarks/page.py

bench-federation: .venv/.bench
	$(BIN)/python benchmarks/federation_round.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/scale_link.py
	$(BIN)/python benchmarks/page.py

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

# pip says what it takes from where, one line a package.
INSTALL := $(BIN)/pip install --disable-pip-version-check --progress-bar off --editable

.venv/.demo: pyproject.toml | $(BIN)/python
	@echo "installing mamfed and what it needs into .venv: minutes, on Linux gigabytes (README.md)"
	$(INSTALL) ".[simulations]"
	@touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	@echo "installing mamfed and its tests' tools into .venv: minutes, on Linux gigabytes (README.md)"
	$(INSTALL) ".[dev]"
	@touch $@ .venv/.demo

.venv/.bench: pyproject.toml | $(BIN)/python
	$(INSTALL) ".[dev,bench]"
	@touch $@ .venv/.dev .venv/.demo
