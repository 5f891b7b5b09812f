# The commands of this project. CONTRIBUTING.md and .ci/run call these and nothing else.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/installed
PYTEST := $(BIN)/python -m pytest

define DEMO_S3
$(BIN)/python jobs/backfill.py demo --archives s3://demo/archives --lake s3://demo/lake; \
$(BIN)/rmsai stats --lake s3://demo/lake
endef

.DEFAULT_GOAL := help
.PHONY: help demo demo-s3 demo-nightly test test-unit test-cluster test-jobs check audit format bench chaos fuzz lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP)  ## real ECG -> embeddings, scores and tables in demo/, on a local Ray
	$(BIN)/python jobs/backfill.py

demo-s3: $(STAMP)  ## the same from s3:// to s3://, against an S3 server on loopback
	$(BIN)/python -m cluster.local_s3 sh -ec '$(DEMO_S3)'

demo-nightly: $(STAMP)  ## three nights of a simulated ward; the third raises an alert
	$(BIN)/python jobs/nightly.py demo; code=$$?; [ $$code = 0 ] || [ $$code = 6 ]

test: test-unit test-cluster test-jobs  ## every test

test-unit: $(STAMP)  ## without Ray, seconds
	$(PYTEST) tests/unit --numprocesses logical --maxprocesses 8 --dist loadfile

test-cluster: $(STAMP)  ## a real Ray and a real S3 server, minutes
	$(PYTEST) tests/cluster

test-jobs: $(STAMP)  ## the demo preset of every job, minutes
	$(PYTEST) tests/jobs --numprocesses 2

check: $(STAMP)  ## lint, format, types, and known weaknesses of the pinned packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m cluster.audit

audit: $(STAMP)  ## known weaknesses of the pinned packages, where an advisory service answers
	$(BIN)/python -m cluster.audit

format: $(STAMP)  ## repair what lint and format can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## every benchmark, half an hour, and one table of what was reached and aimed at
	$(BIN)/python -m benchmarks.everything

chaos: $(STAMP)  ## strikes running backfills in 20 ways, and compares what the reruns leave with an undisturbed run
	$(BIN)/python -m benchmarks.chaos

fuzz: $(STAMP)  ## damages archives for ten minutes; none may cost more than itself
	$(BIN)/python -m benchmarks.fuzz --seconds 600

lock:  ## resolve pyproject.toml anew and pin the result
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check -e ".[dev]"
	{ sed -n '/^#/p' requirements.lock; \
	  build/lock/bin/pip freeze --all --exclude pip --exclude-editable | sed 's/+.*//'; } > build/lock.txt
	mv build/lock.txt requirements.lock
	rm -rf build/lock

clean:  ## remove what demos, tests and builds left; keep .venv
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
