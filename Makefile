# Every target sets up .venv by itself, with python3 and pip alone. Later calls start at once.

PYTHON ?= python3
BIN := .venv/bin
# Some containers set it; then each of a federation's processes would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo quick coverage test matrix check docs wheel federation chaos prove bench bench-busy bench-federation bench-intake bench-recipe fuzz lock audit ranges clean help

help:
	@echo "make demo        train three phantom hospitals; open runs/demo/report.html"
	@echo "make quick       run the unit tests without the slow ones; a minute and a half"
	@echo "make coverage    the same with coverage of lines, at least 70 %"
	@echo "make test        run all tests"
	@echo "make check       ruff, mypy --strict, import-linter, links of the documentation"
	@echo "make docs        build the documentation; open site/index.html"
	@echo "make matrix      run the tests under each installed Python of 3.11, 3.12 and 3.13"
	@echo "make federation  enrol three phantom hospitals and train between real processes over TLS"
	@echo "make chaos       the same, while killing server, sites and workers at random; prints its seed"
	@echo "make prove       attack the promises of docs/promises.md: every suite of tests/security; under an hour"
	@echo "make fuzz        20,000 damaged and hostile files; kill a preparation of 2,000 files ten times"
	@echo "make bench       compare with peers what fits in 15 minutes; writes docs/benchmarks.md"
	@echo "make bench-busy        the network beside two endless loops, compared with peers; fifteen minutes"
	@echo "make bench-federation  compare rounds with stock Flower; up to 1,000 sites"
	@echo "make bench-intake      images per second by transfer syntax, and where the time goes"
	@echo "make bench-recipe      the trials behind stage 2's recipe, on real images; takes hours"
	@echo "make wheel       build dist/*.whl and bills of materials; check the wheel in an empty environment"
	@echo "make audit       look for known vulnerabilities of the locked packages; needs the network"
	@echo "make lock        write deploy/lock/ from the versions in .venv"
	@echo "make ranges      check that the version ranges of pyproject.toml resolve"
	@echo "make clean       remove .venv and caches; runs/ is kept"

demo: .venv/.demo
	$(BIN)/mamfed-simulate demo --out runs/demo

quick: .venv/.dev
	$(BIN)/pytest -q -n 2 tests/unit -m "not slow"

coverage: .venv/.dev
	$(BIN)/pytest -q -n 2 tests/unit -m "not slow" $(addprefix --cov=mamfed_,common client server simulations) \
		--cov-fail-under=70

# The others start federations: the tests of a file share one, and a worker.
SINGLE := tests/unit tests/integration tests/benchmarks

test: .venv/.dev
	$(BIN)/pytest -n 2 $(SINGLE)
	$(BIN)/pytest -n 2 --dist loadfile tests $(addprefix --ignore=,$(SINGLE))

matrix:
	tests/matrix.sh

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(DOCS)

# Material's advertisement for its successor is no warning of ours.
DOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: .venv/.dev
	$(DOCS)

wheel: .venv/.dev
	$(BIN)/python deploy/wheel.py

federation: .venv/.demo
	$(BIN)/python tests/processes/run_federation.py

chaos: .venv/.demo
	$(BIN)/python tests/processes/chaos.py

# These fit into fifteen minutes; the page follows. The other scripts run alone.
MEASURED := network.cpu network.corruption network.batches federation.aggregation federation.wire \
	intake.from_disk commands.startup

bench: .venv/.dev
	for name in $(MEASURED); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done
	$(BIN)/python -m benchmarks.lib.page

bench-busy: .venv/.dev
	$(BIN)/python -m benchmarks.network.busy
	$(BIN)/python -m benchmarks.lib.page

bench-federation: .venv/.dev
	$(BIN)/python -m benchmarks.federation.round
	$(BIN)/python -m benchmarks.federation.scale
	$(BIN)/python -m benchmarks.federation.scale_link
	$(BIN)/python -m benchmarks.lib.page

bench-intake: .venv/.dev
	$(BIN)/python -m benchmarks.intake.chain
	$(BIN)/python -m benchmarks.intake.from_disk

bench-recipe: .venv/.dev
	$(BIN)/python -m benchmarks.quality.recipe

fuzz: .venv/.dev
	$(BIN)/python tests/fault/fuzz_files.py --mutants 20000
	$(BIN)/python tests/fault/kill_prepare.py

# Two suites at a time; each prints its seed and one line for each attempt, and also runs alone.
prove: .venv/.dev
	$(BIN)/python -m tests.security.lib.prove

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mamfed needs Python 3.11 or newer; try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# First the role's locked packages, by version and hash, so that pip does not search; then mamfed itself,
# with torch by its range (deploy/README.md). --no-compile: pip would compile all of torch.
# `make LOCK= ...` uses the ranges of pyproject.toml alone.
LOCK ?= yes
PIP := $(BIN)/pip install --disable-pip-version-check --progress-bar off --no-compile
locked = $(if $(LOCK),$(PIP) --require-hashes --no-deps --requirement deploy/lock/$(1).txt)

.venv/.demo: pyproject.toml deploy/lock/simulations.txt | $(BIN)/python
	@echo "installing mamfed and its dependencies into .venv: minutes; gigabytes on Linux (README.md)"
	$(call locked,simulations)
	$(PIP) --editable ".[simulations]"
	@touch $@

.venv/.dev: pyproject.toml deploy/lock/dev.txt | $(BIN)/python
	@echo "installing mamfed and its development tools into .venv: minutes; gigabytes on Linux (README.md)"
	$(call locked,dev)
	$(PIP) --editable ".[dev]"
	@touch $@ .venv/.demo

# To change versions: install by the ranges (make LOCK= test), test, then lock what was tested.
lock: .venv/.dev
	$(BIN)/python deploy/lock.py

# Packages that run at a hospital or a coordinator; without a network, scan dist/*.cdx.json instead.
# --strict: an index that does not know the packages would otherwise count as "no vulnerabilities".
audit: .venv/.dev
	for role in server export client simulations; do \
		$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement deploy/lock/$$role.txt || exit 1; done

ranges: .venv/.dev
	$(BIN)/python deploy/lock.py --check
