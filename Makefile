# SPDX-License-Identifier: Apache-2.0
# Every target needs Python 3.11, 3.12 or 3.13, make and a package index, and nothing else. No target needs git.
# The first call creates the environment in .venv/. A change of requirements/ or pyproject.toml recreates it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:
.PHONY: help run test mutants faults fuzz lint bench docs sbom audit clean requirements stale

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
# Debian and others install further versions under these names.
PYTHONS := $(PYTHON) python3.13 python3.12 python3.11

# Variables of another Python environment must not affect this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX PIP_USER PIP_TARGET PIP_PREFIX PYTHONDONTWRITEBYTECODE

UV := $(BIN)/uv --quiet
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-annotate --custom-compile-command 'make requirements'

# Each worker is a separate process. With packages compiled in advance it starts in half the time.
SYNC := $(UV) pip sync --python $(BIN)/python --compile-bytecode --require-hashes

# Environments cannot be moved. One that was moved, or whose Python was removed, is recreated.
STALE := $(shell test ! -e $(VENV)/.python || \
  { test "`cat $(VENV)/.python`" = "`pwd -P`" && $(BIN)/python -c '' 2>/dev/null; } || echo stale)

help: ## Show this help
	@echo 'make <target>, where <target> is one of'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1	\2/p' Makefile | while IFS='	' read -r target text; do \
	  printf '  %-14s%s\n' "$$target" "$$text"; done

run: $(VENV)/.run ## Start everything on this machine with demo data and a station prompt; Ctrl-C stops it
	@$(BIN)/bookdrop up

# Four processes on any machine: tests mostly wait for workers, brokers and disks.
test: $(VENV)/.dev ## Run the tests; ARGS='-k slip' selects some
	@$(BIN)/python -m pytest -n 4 --maxschedchunk=1 $(ARGS)

# Some 750 small changes, each tested by the unit tests that reach it. Not part of `make test`: it takes 5 to 30 minutes.
mutants: $(VENV)/.dev ## Change the pure rules and list the changes that no test detects; ARGS='tasks.returns*' selects
	@$(BIN)/mutmut run $(ARGS)
	@$(BIN)/mutmut results

# Each run starts real processes on separate servers and touches nothing else on this machine.
faults: $(VENV)/.dev ## Inject faults and verify that no event is lost or doubled; ARGS='--short', ARGS=--help
	@$(BIN)/python -m tests.fault $(ARGS)

# Not part of `make test`, which sends some hundred: 100,000 messages take 20 minutes or more.
fuzz: $(VENV)/.dev ## Send 100,000 mutated messages through a real worker; ARGS='--broker rabbitmq', ARGS=--help
	@$(BIN)/python -m tests.fuzz $(ARGS)

lint: $(VENV)/.dev ## Check style, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py
	$(BIN)/lint-imports

# The short set takes some minutes; docs/how-to/measure.md has the long set. ARGS comes last and overrides.
BENCHES := 'scans --rounds 2' 'growth --sizes 10000,100000,1000000' 'worker --scans 10000' slips station 'replay --held 2000'

bench: $(VENV)/.dev ## Run the short set of benchmarks; each receives ARGS='--rounds 5'
	@set -e; for bench in $(BENCHES); do \
	  set -- $$bench; script=benchmarks/$$1.py; shift; \
	  echo "== $$script $$* $(ARGS)"; $(BIN)/python "$$script" "$$@" $(ARGS); done

docs: $(VENV)/.dev ## Generate the reference pages from the code
	@$(BIN)/python -m docs.generate

# In dist/sbom.cdx.json, and the licences in NOTICE: of exactly the packages of requirements/run.txt on this system.
sbom: $(VENV)/.audit ## Write an SBOM (CycloneDX) to dist/, and the licences of all packages to NOTICE
	@mkdir -p dist
	@$(VENV)/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON \
	  --output-file dist/sbom.cdx.json $(VENV)/installed/bin/python
	@{ sed -n '/^Package/q;p' NOTICE; $(VENV)/audit/bin/pip-licenses --python $(VENV)/installed/bin/python --from mixed --with-system \
	  --order name --format plain | sed 's/^ *//; s/ *$$//' | sed '1s/Name   /Package/'; } >NOTICE.new && mv NOTICE.new NOTICE

audit: $(VENV)/.audit ## Look for known vulnerabilities in the pinned packages; error 75 without a source
	@.ci/audit $(VENV)/audit/bin/pip-audit requirements/run.txt

clean: ## Remove the environment and all caches; keep the data in .bookdrop/
	rm -rf $(VENV) dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

requirements: $(VENV)/.uv ## Pin every package of pyproject.toml; REQUIREMENTS=--upgrade selects newer versions
	$(COMPILE) $(REQUIREMENTS) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) $(REQUIREMENTS) requirements/audit.in -o requirements/audit.txt
	$(COMPILE) $(REQUIREMENTS) --extra build pyproject.toml -o requirements/run.txt
	$(COMPILE) $(REQUIREMENTS) --extra build --extra dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt

$(VENV)/.python: $(STALE)
	@for python in $(PYTHONS); do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || continue; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { without_venv=$$python; continue; }; \
	  echo "Creating an environment in $(VENV)/ with $$("$$python" --version) ..."; \
	  rm -rf $(VENV); \
	  "$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	  pwd -P >$@; exit 0; \
	done; \
	if [ -n "$$without_venv" ]; then \
	  echo "$$without_venv cannot create environments: its modules venv and ensurepip are missing." >&2; \
	  echo "On Debian and Ubuntu install them with: apt install python3-venv. Then run make again." >&2; \
	elif command -v $(PYTHON) >/dev/null; then \
	  echo "bookdrop needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install one of them, or name it: make PYTHON=/path/to/python3.12 <target>" >&2; \
	else \
	  echo "bookdrop needs Python 3.11, 3.12 or 3.13, and there is no $(PYTHON) on the PATH." >&2; \
	  echo "Install one of them, or name it: make PYTHON=/path/to/python3.12 <target>" >&2; \
	fi; exit 1

$(VENV)/.uv: $(VENV)/.python requirements/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# Two separate environments: the tools, and the packages that they describe, without the tools.
$(VENV)/.audit: $(VENV)/.uv requirements/audit.txt requirements/run.txt
	@$(UV) venv --clear --python $(BIN)/python $(VENV)/audit
	@$(UV) pip sync --python $(VENV)/audit/bin/python --require-hashes requirements/audit.txt
	@$(UV) venv --clear --python $(BIN)/python $(VENV)/installed
	@$(UV) pip sync --python $(VENV)/installed/bin/python --require-hashes requirements/run.txt
	@touch $@

# requirements/dev.txt contains requirements/run.txt in the same versions, so .dev also satisfies .run.
$(VENV)/.run: $(VENV)/.uv requirements/run.txt pyproject.toml
	@test -n "`find $(VENV)/.dev -newer requirements/dev.txt -newer pyproject.toml 2>/dev/null`" || { \
	  echo 'Installing the packages that bookdrop needs ...'; rm -f $(VENV)/.dev; \
	  $(SYNC) requirements/run.txt && \
	  $(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation -e .; }
	@touch $@

$(VENV)/.dev: $(VENV)/.uv requirements/dev.txt pyproject.toml
	@echo 'Installing the packages that the tests need ...'
	@$(SYNC) requirements/dev.txt
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(VENV)/.run $@
