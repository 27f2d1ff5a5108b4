# `make demo` and `make test` do all the set-up themselves. Programs are called in .venv, not through `uv run`,
# which would write addresses into the lock.
.DEFAULT_GOAL := help
.PHONY: help sync demo test test-all check lock reference labs mistakes requirements parallelism explain faults bench clean
BIN := .venv/bin
export PYTHON ?= python3
# One thread a process: beside a busy neighbour, two are many times slower.
TEST_ENV := OMP_NUM_THREADS=1 PYTHONHASHSEED=0 HF_HUB_OFFLINE=1 WANDB_MODE=offline

# File by file, since a file's jobs are made once. Each process starts a cluster of its own.
PYTEST := $(TEST_ENV) $(BIN)/pytest
SHARED_OUT := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F: "{printf \"%-12s %s\\n\", \$$1, \$$2}"

sync: .venv/.synced ## install the locked dependencies into .venv

.venv/.synced: pyproject.toml uv.lock scripts/setup.sh
	@sh scripts/setup.sh

demo: sync ## tune a small model in 4 bits here and now
	$(BIN)/hpcft submit --variant qlora --preset quickstart --cluster local --wait

check: sync ## formatting, lint, types, layers, shell
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run scripts/*.sh tests/slurm/*.sh tests/faults/bin/* \
		tests/deploy/apptainer tests/deploy/kubectl

test: check ## install what the tests need, and run them
	sh tests/slurm/install.sh
	$(PYTEST) $(SHARED_OUT)

test-all: test ## the tests, then the slow drills and matrices, one at a time
	sh tests/slurm/install.sh chromium chromium-driver
	$(PYTEST) -m slow

lock: ## resolve again, newest versions within the bounds
	rm -f .venv/.synced uv.lock
	@sh scripts/setup.sh

reference: sync ## write docs/reference.md
	$(BIN)/hpcft reference > docs/reference.md

labs: sync ## write the notebooks in labs/
	$(BIN)/python scripts/make_labs.py

mistakes: sync ## grade what is said to the mistakes in tests/mistakes, and write docs/mistakes.md
	PYTHONPATH=tests $(BIN)/python -m mistakes.grade --write docs/mistakes.md

requirements: sync ## write docs/requirements.md from the names of the tests
	PYTHONPATH=tests $(BIN)/python -m requirements.page --write docs/requirements.md

parallelism: sync ## train every cell of docs/parallelism.md, and write it
	sh tests/slurm/install.sh
	HPCFT_TEST_WRITE_TABLE=docs/parallelism.md $(PYTEST) -m slow tests/slurm/test_parallelism.py

explain: sync ## break 20 jobs on Slurm, ask for each verdict, and write the table in docs/why-a-job-failed.md
	sh tests/slurm/install.sh
	HPCFT_TEST_WRITE_TABLE=docs/why-a-job-failed.md $(PYTEST) -m slow tests/slurm/test_explain.py

# Each part can be run by itself and its file kept: the report puts together what is there.
FAULTS := results/faults
LAB := $(TEST_ENV) PYTHONPATH=tests $(BIN)/python -m faults
faults: sync ## hurt jobs, submissions and files for over an hour, and write the tables in docs/reliability.md
	sh tests/slurm/install.sh
	-$(LAB).play --seeds 1 2 --minutes 40 --json $(FAULTS)/faults.json
	-$(LAB).exactly_once --submissions 500 --json $(FAULTS)/exactly_once.json
	-$(LAB).kills --log-kills 2000 --longest 0.4 --save-kills 3000 --damages 5000 --json $(FAULTS)/kills.json
	-$(LAB).writers --writers 128 --seconds 180 --json $(FAULTS)/writers.json
	$(LAB).report --page docs/reliability.md $(FAULTS)/*.json

bench: sync ## start-up times, side by side
	$(BIN)/python benchmarks/startup.py

clean: ## remove what the targets made
	rm -rf .venv .tools results
