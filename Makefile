# make book | check | test | lint | clean | distclean; each installs what it needs into .venv first.
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
npm := $(shell command -v npm)
javascript := node_modules/.installed
options = --preset $(PRESET) $(if $(filter-out 0,$(RECOMPUTE)),--recompute) \
  $(foreach chapter,$(ONLY),--only $(chapter)) $(if $(JOBS),--jobs $(JOBS)) \
  $(if $(REPOSITORY),--repository '$(REPOSITORY)')

.PHONY: book check test lint clean distclean

book: $(installed)
	$(bin)/python -m bookbuild book $(options)

# Before every commit.
check: lint
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n 2 --dist worksteal \
	  -m "not (book or browser or cluster or kernel or slow)"

# The tests' own book lies apart, so that testing never replaces the book that you read. Other processors have other
# kernels of OpenBLAS, which round otherwise: stored results must hold with those that have no AVX-512, too.
test: lint
	$(bin)/python -m tests.support.browser
	$(bin)/python -m bookbuild book --preset quick --output _build/test
	@if grep -qw avx2 /proc/cpuinfo 2>/dev/null; then set -x; \
	  OPENBLAS_CORETYPE=Haswell DMFKIT_RECHECK=short OMP_NUM_THREADS=1 $(bin)/python -m pytest \
	    -n $(TEST_JOBS) --dist worksteal -k can_be_made_again tests/experiments/test_stored_results.py; fi
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n $(TEST_JOBS) --dist worksteal -rs

lint: $(installed) $(if $(npm),$(javascript))
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports --no-logo --no-cache
	@if [ -x node_modules/.bin/tsc ]; then npm run --silent check; else \
	  echo "The JavaScript was not checked: $(if $(npm),its tools could not be installed,there is no npm) (see package.json)."; fi

# The tools that check the JavaScript. Elsewhere than in a workflow one can do without them.
$(javascript): package.json package-lock.json
	@npm ci --no-audit --no-fund --silent && touch $@ || [ -z "$${CI:-}" ]

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
	rm -rf .venv node_modules
