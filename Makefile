# make book | test | lint | clean | distclean; each installs what it needs into .venv first.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := book

PYTHON ?= python3
PRESET ?= paper
RECOMPUTE ?=
ONLY ?=
JOBS ?=
# Where the sources are published, if not what _config.yml says.
REPOSITORY ?=
# Processes for the tests; each uses one thread, and many wait for a browser or a kernel.
TEST_JOBS ?= 3

bin := .venv/bin
installed := .venv/.installed
options = --preset $(PRESET) $(if $(filter-out 0,$(RECOMPUTE)),--recompute) \
  $(foreach chapter,$(ONLY),--only $(chapter)) $(if $(JOBS),--jobs $(JOBS)) \
  $(if $(REPOSITORY),--repository '$(REPOSITORY)')

.PHONY: book test lint clean distclean

book: $(installed)
	$(bin)/python -m bookbuild book $(options)

# The tests' own book lies apart, so that testing never replaces the book that you read.
test: lint
	$(bin)/python -m bookbuild book --preset quick --output _build/test
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n $(TEST_JOBS) --dist worksteal -rs

lint: $(installed)
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports --no-logo --no-cache

$(installed): requirements.txt pyproject.toml bookbuild/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is missing or older than Python 3.11: install a newer one and name it, as in make PYTHON=python3.12." >&2; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	$(bin)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(bin)/python -m pip install --disable-pip-version-check --no-deps -e . -e ./bookbuild
	@touch $@

clean:
	rm -rf _build

distclean: clean
	rm -rf .venv
