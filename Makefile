# Each target sets up .venv by itself, with python3 and pip alone, and is quick when nothing changed.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test matrix check federation chaos bench bench-federation bench-intake bench-recipe fuzz lock ranges clean help

help:
	@echo "make demo   train three phantom hospitals; open runs/demo/report.html"
	@echo "make test   run the tests"
	@echo "make matrix  the tests under each of Python 3.11, 3.12 and 3.13 that is at hand"
	@echo "make federation  enrol three phantom hospitals and train between real processes over TLS"
	@echo "make chaos  the same, killing server, sites and workers at random; prints its seed"
	@echo "make check  ruff, mypy --strict, import-linter"
	@echo "make bench  measure beside the peers what fits in 15 minutes; writes docs/benchmarks.md"
	@echo "make bench-federation  rounds beside stock Flower, and up to 1,000 sites"
	@echo "make bench-intake  images a second by transfer syntax, and where the time goes"
	@echo "make bench-recipe  the trials behind stage 2's recipe, on real images; hours"
	@echo "make fuzz   20,000 damaged and hostile files; kill a preparation of 2,000 files ten times"
	@echo "make lock   write deploy/lock/ from what .venv has; make ranges: do pyproject's ranges resolve?"
	@echo "make clean  remove .venv and caches; runs/ is kept"

demo: .venv/.demo
	$(BIN)/mamfed-simulate demo --out runs/demo

test: .venv/.dev
	$(BIN)/pytest

matrix:
	tests/matrix.sh

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

federation: .venv/.demo
	$(BIN)/python tests/processes/run_federation.py

chaos: .venv/.demo
	$(BIN)/python tests/processes/chaos.py

# What fits in a quarter of an hour; then the page. The other scripts run alone.
QUICK := network corruption batches aggregation wire intake startup

bench: .venv/.dev
	for name in $(QUICK); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python benchmarks/page.py

bench-federation: .venv/.dev
	$(BIN)/python benchmarks/federation_round.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/scale_link.py
	$(BIN)/python benchmarks/page.py

bench-intake: .venv/.dev
	$(BIN)/python benchmarks/intake_chain.py
	$(BIN)/python benchmarks/intake.py

bench-recipe: .venv/.dev
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

# pip says what it takes from where, one line a package. First what the lock of a role holds, by version
# and hash: nothing is searched for. Then mamfed itself, with torch by its range (deploy/README.md).
# Python compiles what is imported, when it is; pip would compile all of torch.
# `make LOCK= ...` goes by the ranges of pyproject.toml alone.
LOCK ?= yes
PIP := $(BIN)/pip install --disable-pip-version-check --progress-bar off --no-compile
locked = $(if $(LOCK),$(PIP) --require-hashes --no-deps --requirement deploy/lock/$(1).txt)

.venv/.demo: pyproject.toml deploy/lock/simulations.txt | $(BIN)/python
	@echo "installing mamfed and what it needs into .venv: minutes, on Linux gigabytes (README.md)"
	$(call locked,simulations)
	$(PIP) --editable ".[simulations]"
	@touch $@

.venv/.dev: pyproject.toml deploy/lock/dev.txt | $(BIN)/python
	@echo "installing mamfed and its tests' tools into .venv: minutes, on Linux gigabytes (README.md)"
	$(call locked,dev)
	$(PIP) --editable ".[dev]"
	@touch $@ .venv/.demo

# After a change of versions: install by the ranges (make LOCK= test), test, then lock what was tested.
lock: .venv/.dev
	$(BIN)/python deploy/lock.py

ranges: .venv/.dev
	$(BIN)/python deploy/lock.py --check
