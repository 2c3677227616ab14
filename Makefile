# make demo  trains a small network on pictures that ship with foveal, about five minutes
# make test  runs the tests
# Both set up their own virtual environment in .venv and use it again while it is up to date.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint slow clean

demo: $(VENV)/demo.stamp
	$(RUN) -m foveal train classify --recipe demo --out runs/demo --resume
	@echo "open runs/demo/report.html in a browser; predictions and gates are in runs/demo/figures"

test: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

slow: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 -m slow

lint: $(VENV)/test.stamp
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "foveal needs Python 3.11 or newer, and $(PYTHON) is `$(PYTHON) -V`: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo.stamp: $(VENV)/python.stamp pyproject.toml
	$(RUN) -m pip install --disable-pip-version-check --quiet --editable .
	touch $@

$(VENV)/test.stamp: $(VENV)/python.stamp pyproject.toml
	$(RUN) -m pip install --disable-pip-version-check --quiet --editable '.[dev,export,data]'
	touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
