# make setup   everything that the rest needs: .venv, Java, Maven, the sandbox's jars; for tests HAProxy, a name server and Chromium
# make check   format, lint, types, imports, API, generated code and the tests that need no server and no browser
# make test    setup, then all of check and the tests on real servers and in Chromium
# make test-full  the same with a million random histories, translation judged and the demo run with MirrorMaker of both kinds, regions of three brokers, and ten kills
# make e2e     the tests on real servers only; K=expression chooses some
# make demo    a region dies, the other takes over, everything comes home; REPORT=file writes JSON
# make demo-conflicts  Cancelled in one region against Shipped in the other, resolved by four rules files
# make fmt, make proto, make docs, make lock, make clean

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := pip --disable-pip-version-check --quiet

.PHONY: setup test-tools jars python check lint test test-full e2e demo demo-conflicts fmt proto docs lock clean
.DEFAULT_GOAL := check

# Where a recipe says exec, a signal to make alone reaches what tidies up instead of a shell in between.

# What only the tests need comes first: where nothing may be installed all that is missing is named before Java's absence ends it.
setup: python test-tools jars

test-tools:
	@scripts/routers
	@scripts/chromium

jars: python
	@scripts/java
	@$(BIN)/python -m mrc.sandbox jars >/dev/null

python: $(VENV)/.mrc-installed

$(VENV)/.lock-installed: requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "mrc needs $(PYTHON) on the PATH; name another with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; install its venv package" >&2; exit 1; }
	@echo "installing Python packages into $(VENV)" >&2
	@$(BIN)/python -m $(PIP) install --require-hashes -r requirements.lock || { echo "they could not be installed; see that pip reaches its index, and run this again" >&2; exit 1; }
	@touch $@

$(VENV)/.mrc-installed: $(VENV)/.lock-installed pyproject.toml
	@$(BIN)/python -m $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

lint: python
	@scripts/lint

check: lint
	@MRC_HISTORIES=4000 MRC_CONFLICT_HISTORIES=2000 MRC_SIM_SEEDS=60 exec scripts/test -q -n $$(($$(nproc) * 2)) -m "not server and not browser"

test: setup lint
	@exec scripts/test-all

test-full: setup lint
	@MRC_HISTORIES=1000000 MRC_CONFLICT_HISTORIES=1000000 MRC_CONFORMANCE=all MRC_DEMOS=all MRC_KILLS=10 MRC_LONG=' ' exec scripts/test-all

e2e: setup
	@exec scripts/test -v -m server $(if $(K),-k "$(K)")

demo: jars
	@exec scripts/demo demo --pages build/demo $(if $(REPORT),--report "$(REPORT)")

demo-conflicts: jars
	@exec scripts/demo demo-conflicts

fmt: python
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

proto: python
	@$(BIN)/python scripts/proto.py

docs: python
	@$(BIN)/python scripts/docs.py

lock: python
	@$(BIN)/uv pip compile --quiet pyproject.toml --group dev --generate-hashes --no-header --no-annotate --upgrade --output-file requirements.lock

clean:
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
