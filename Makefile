# Everything here needs only make, bash and Python 3.11 or newer; PYTHON=python3.12 picks another one.
#   make demo     train CLIP on the built-in data     make test     run all tests
#   make check    what continuous integration runs    make format   rewrite the code in the one style
#   make gpu      all that only a GPU can show, in ten minutes; writes benchmarks/results/gpu_*.json

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
BIN     := $(VENV)/bin

# One stamp per environment: a second call installs nothing until its inputs change.
RUNTIME     := $(VENV)/.installed-runtime
DEVELOPMENT := $(VENV)/.installed-development
INPUTS      := pyproject.toml constraints.txt

# The BLAS threads of parallel test processes would fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test check format format-check lint contracts types tables grammar wheel gpu clean

demo: $(RUNTIME)
	$(BIN)/vlmdsl train clip

test: $(DEVELOPMENT)
	$(PYTEST) -n $(WORKERS) --dist=loadgroup

# Fast checks first. The strict grammar and the wheel are tests too (tests/architecture), so `test` covers them.
check: format-check lint contracts types tables test

format: $(DEVELOPMENT)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/vlmdsl fmt recipes

format-check: $(DEVELOPMENT)
	$(BIN)/ruff format --check .
	$(BIN)/vlmdsl fmt --check recipes

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .

contracts: $(DEVELOPMENT)
	PYTHONPATH=.:cli $(BIN)/lint-imports --no-cache

types: $(DEVELOPMENT)
	$(BIN)/mypy

# Tables of contents, which a new primitive or diagnostic can be missing from: seconds, before the minutes of `test`.
tables: $(DEVELOPMENT)
	$(PYTEST) -q tests/unit/primitives/test_kernel.py tests/architecture/test_torch_free.py

grammar: $(DEVELOPMENT)
	$(PYTEST) tests/architecture/test_grammar.py

wheel: $(DEVELOPMENT)
	$(PYTEST) tests/architecture/test_wheel.py

gpu: $(DEVELOPMENT)
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vlmdsl needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(RUNTIME): $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEVELOPMENT): $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable '.[ann,arrow,captions,datasets,detection,hf,lora,mlflow,onnx,remote,superpixels,tensorboard,wandb,zstandard]'
	touch $@ $(RUNTIME)
