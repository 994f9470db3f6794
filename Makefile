# Belfry's chores. `make help` lists them.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin

export PORT

.PHONY: help run test test-deep check lock bench clean

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
