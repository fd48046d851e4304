# `make demo` and `make test` need Python 3.11 or newer with pip, and make; they install the
# rest into directories .venv*. Another interpreter: make demo PYTHON=python3.13

PYTHON ?= python3

VENV := .venv
TAP_VENV := .venv-tap
MELTANO_VENV := .venv-meltano
POSTGRES_TAP_VENV := .venv-tap-postgres
PIPELINEWISE_TAP_VENV := .venv-tap-pipelinewise-postgres
TAP_REQUIREMENTS := examples/order_to_cash/tap-requirements.txt
MELTANO_REQUIREMENTS := tests/meltano/requirements.txt
POSTGRES_TAP_REQUIREMENTS := tests/databases/tap-requirements.txt
PIPELINEWISE_TAP_REQUIREMENTS := tests/databases/tap-pipelinewise-requirements.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH
unexport PYTHONHOME

# The stamps carry the interpreter's version, so that another PYTHON makes new environments.
VERSION_CODE := import sys; print("%d.%d" % sys.version_info[:2])
PYTHON_VERSION := $(shell $(PYTHON) -c '$(VERSION_CODE)' 2>/dev/null)
DEMO_STAMP := $(VENV)/.installed-for-demo-$(PYTHON_VERSION)
TEST_STAMP := $(VENV)/.installed-for-tests-$(PYTHON_VERSION)
TAP_STAMP := $(TAP_VENV)/.installed-$(PYTHON_VERSION)
MELTANO_STAMP := $(MELTANO_VENV)/.installed-$(PYTHON_VERSION)
POSTGRES_TAP_STAMP := $(POSTGRES_TAP_VENV)/.installed-$(PYTHON_VERSION)
PIPELINEWISE_TAP_STAMP := $(PIPELINEWISE_TAP_VENV)/.installed-$(PYTHON_VERSION)

# The tests on PostgreSQL, and their taps, are for machines that have its server.
POSTGRES := $(firstword $(shell command -v initdb 2>/dev/null) $(wildcard /usr/lib/postgresql/*/bin/initdb))
DATABASE_STAMPS := $(if $(POSTGRES),$(POSTGRES_TAP_STAMP) $(PIPELINEWISE_TAP_STAMP))

.PHONY: help
help:
	@echo "make demo      an order-to-cash event log, from a real tap to a process model in the embedded emulator"
	@echo "make test      format, lint, types, import directions, and the tests with coverage"
	@echo "make test-all  the same with the slow tests"
	@echo "make format    put the code into its form"
	@echo "make clean     remove the virtual environments and everything that was built"

GOAL := $(or $(firstword $(MAKECMDGOALS)),demo)
.PHONY: check-python
check-python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)' here: install Python 3.11 or newer, or name it: make $(GOAL) PYTHON=/path/to/python" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1); name another one: make $(GOAL) PYTHON=/path/to/python" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; \
	  exit 1; }

# A broken environment, or one of another Python, is made anew. $(1): its directory
define make_environment
test "$$($(1)/bin/python -c 'import pip; $(VERSION_CODE)' 2>/dev/null)" = "$(PYTHON_VERSION)" \
  || $(PYTHON) -m venv --clear $(1)
endef

$(DEMO_STAMP): pyproject.toml | check-python
	@echo "Installing target-celonis and the emulator into $(VENV) ..."
	@$(call make_environment,$(VENV))
	@$(VENV)/bin/python -m pip install -qq -e '.[emulator]'
	@touch $@

$(TEST_STAMP): pyproject.toml | check-python
	@echo "Installing target-celonis and what its tests need into $(VENV) ..."
	@$(call make_environment,$(VENV))
	@$(VENV)/bin/python -m pip install -qq -e '.[emulator,test]'
	@touch $@ $(DEMO_STAMP)

$(TAP_STAMP): $(TAP_REQUIREMENTS) | check-python
	@echo "Installing the tap into $(TAP_VENV) ..."
	@$(call make_environment,$(TAP_VENV))
	@$(TAP_VENV)/bin/python -m pip install -qq -r $(TAP_REQUIREMENTS)
	@touch $@

# Where Meltano cannot be installed its tests are skipped; not so where CI is set.
$(MELTANO_STAMP): $(MELTANO_REQUIREMENTS) | check-python
	@echo "Installing Meltano into $(MELTANO_VENV) ..."
	@$(call make_environment,$(MELTANO_VENV))
	@if $(MELTANO_VENV)/bin/python -m pip install -qq -r $(MELTANO_REQUIREMENTS); then touch $@; \
	  elif test -n "$$CI"; then exit 1; \
	  else echo "Meltano cannot be installed here: the tests in tests/meltano will be skipped" >&2; fi

# Where the tap cannot be installed its tests are skipped; not so where CI is set.
$(POSTGRES_TAP_STAMP): $(POSTGRES_TAP_REQUIREMENTS) | check-python
	@echo "Installing the tap for PostgreSQL into $(POSTGRES_TAP_VENV) ..."
	@$(call make_environment,$(POSTGRES_TAP_VENV))
	@if $(POSTGRES_TAP_VENV)/bin/python -m pip install -qq --only-binary :all: -r $<; then touch $@; \
	  elif test -n "$$CI"; then exit 1; \
	  else echo "The tap cannot be installed here: the tests in tests/databases will be skipped" >&2; fi

# The same for the other tap. It asks for a Python before 3.10, and for packages that have wheels for
# such only; the file names the nearest ones that have wheels for newer Pythons, so that pip need not
# look for others. Where these have none either, its tests are skipped, in CI too.
$(PIPELINEWISE_TAP_STAMP): $(PIPELINEWISE_TAP_REQUIREMENTS) | check-python
	@echo "Installing PipelineWise's tap for PostgreSQL into $(PIPELINEWISE_TAP_VENV) ..."
	@$(call make_environment,$(PIPELINEWISE_TAP_VENV))
	@if $(PIPELINEWISE_TAP_VENV)/bin/python -m pip install -qq --only-binary :all: --no-deps --ignore-requires-python -r $<; \
	  then touch $@; \
	  elif test -n "$$CI" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] > (3, 13))'; then exit 1; \
	  else echo "There are no wheels of PipelineWise's tap for Python $(PYTHON_VERSION): its tests will be skipped" >&2; fi

.PHONY: demo
demo: check-python
	@$(MAKE) --silent --no-print-directory -j2 $(DEMO_STAMP) $(TAP_STAMP)
	@$(VENV)/bin/python examples/order_to_cash/demo.py

# $(1): a program of the environment and its arguments
define step
@echo '==> $(1)'
@$(VENV)/bin/$(1) || { echo 'FAILED: $(1)' >&2; exit 1; }
endef

.PHONY: test test-all
test-all: PYTEST_ARGUMENTS := -m "slow or not slow" --cov-config=tests/coverage-all.toml
test test-all: check-python
	@$(MAKE) --silent --no-print-directory -j2 $(TEST_STAMP) $(TAP_STAMP) $(MELTANO_STAMP) $(DATABASE_STAMPS)
	$(call step,ruff format --check)
	$(call step,ruff check)
	$(call step,mypy)
	$(call step,lint-imports)
	$(call step,pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGUMENTS))

.PHONY: format
format: $(TEST_STAMP)
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

.PHONY: clean
clean:
	rm -rf $(VENV) $(TAP_VENV) $(MELTANO_VENV) $(POSTGRES_TAP_VENV) $(PIPELINEWISE_TAP_VENV) \
	  build dist .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
