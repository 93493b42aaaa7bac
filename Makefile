# Every target sets itself up: Python 3.11+, pip, git and make are all a machine needs.
PYTHON ?= python3
BIN := .venv/bin
export UV_COMPILE_BYTECODE := 1
export PYTHONUNBUFFERED := 1
UV := $(BIN)/uv

.PHONY: setup demo test test-slow check docs wheel bench gpu gpu-wheels proof format lock

setup: .venv/.ready-dev  ## the development environment: every extra and tool

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv

.venv/.ready: requirements.lock pyproject.toml | .venv/bin/uv
	$(UV) pip install --quiet --require-hashes -r requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv/.ready-dev: requirements-dev.lock pyproject.toml | .venv/bin/uv
	$(UV) pip sync --quiet --require-hashes requirements-dev.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	touch .venv/.ready $@

demo: .venv/.ready  ## the demo on real digits: runs/quickstart/report.html
	$(BIN)/tokenlabel quickstart --output runs/quickstart

test: setup  ## the test suite, on all cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not slow"

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m slow --timeout 3600

check: setup  ## lint, types, import contract, no host names in lock files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	! grep -nE 'https?://|index-url|find-links|file:' requirements.lock requirements-dev.lock

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: setup  ## the package, in dist/; PROJECT_URL is the address for its links
	rm -rf dist
	$(BIN)/python -m hatchling build

bench: setup  ## every benchmark that needs no data but its own
	for script in targets step models model_lvvit engine; do \
		OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_$$script.py || exit 1; done

# a GPU machine brings its own PyTorch: GPU_PYTHON=python3 uses what is installed there
GPU_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/%,$(GPU_PYTHON)),setup)  ## checks and measurements on a GPU, most telling first: docs/gpu.md; REHEARSE=1 on the CPU
	PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu.py --budget $(or $(BUDGET),9m) $(if $(REHEARSE),--rehearse) $(if $(DATA),--cifar10 $(DATA))

gpu-wheels: setup  ## wheels/ for a GPU machine without a network; HAVE names a file of what is installed there
	$(BIN)/python benchmarks/gpu_wheels.py --have $(or $(HAVE),$(error say what is installed there: make gpu-wheels HAVE=file))

proof: .venv/.ready  ## docs/proof.md; DATA holds CIFAR-10's train and val (folders or tars), ARGS see proof/run.py
	$(BIN)/python proof/run.py --cifar10 $(or $(DATA),$(error say where CIFAR-10 is: make proof DATA=folder)) $(ARGS)

LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate pyproject.toml
EXTRAS := seg export text data s3 demo

lock: .venv/bin/uv  ## pin what pyproject.toml asks for; LOCK_UPGRADE=--upgrade takes the newest versions
	$(LOCK) $(LOCK_UPGRADE) --group dev $(EXTRAS:%=--extra %) -o requirements-dev.lock
	$(LOCK) --group build --extra demo -c requirements-dev.lock -o requirements.lock
