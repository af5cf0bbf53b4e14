# Everything starts here: `make` prints what there is. Each target makes its own .venv first.
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
GPU    := $(shell nvidia-smi -L >/dev/null 2>&1 && echo 1)
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check bench report lock dist clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## .venv with everything in it (CPU build of torch where there is no NVIDIA GPU); EXTRAS=lora,chess adds
	@test -z "$(EXTRAS)" || $(PIP:-qq=-q) install -e '.[$(EXTRAS)]'

# Torch comes first and by version, so that nothing later can pull gigabytes of CUDA onto a machine without a GPU.
# "+cpu" can never resolve to the CUDA build; where no such wheel is at hand PyTorch's own index has one.
$(VENV)/.torch:
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "w2sd needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV), with the $(if $(GPU),CUDA,CPU) build of torch: a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(GPU),1)
	@$(PIP) install "torch==$(TORCH)"
else
	@$(PIP) install "torch==$(TORCH)+cpu" 2>/dev/null || $(PIP) install --index-url $(TORCH_CPU_INDEX) "torch==$(TORCH)"
endif
	@touch $@

$(VENV)/.ready: $(VENV)/.torch requirements.lock pyproject.toml
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

demo: setup  ## the main job on the embedded world: tables, a verdict, and report/index.html (a second run finds everything)
	@$(BIN)/w2sd -m experiment=demo

# A worker for each core, but no more than four: each imports torch for itself. A file stays on one worker, so that what
# its tests share is made once, and files come in the order of tests/conftest.py.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup  ## the tests that need no GPU and no data, side by side (plain `pytest` runs them one after the other)
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE)

test-all: setup  ## the slow ones too (W2SD_DATA=DIR adds the tests on real data)
	@$(BIN)/python -m pytest -q -m "not gpu"

check: setup  ## style, types, and the rule of who may import whom
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# Whatever keeps TRL from being installed, the script says in one line what it lacks.
bench: setup  ## w2sd beside TRL's trainers on the same work, sweeps and starts (an hour; BENCH="--cases small-single")
	@$(BIN)/python -c 'import trl' 2>/dev/null || $(PIP) install -e '.[bench]' 2>/dev/null || true
	@$(BIN)/python benchmarks/run.py $(BENCH)
	@$(BIN)/python benchmarks/commands.py

report: setup  ## the page over everything in the store
	@$(BIN)/w2sd-report

CUDA_PACKAGES := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
  nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver \
  nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx
lock:  ## renew requirements.lock (needs uv): no release younger than a week, no torch, no CUDA
	echo "torch==$(TORCH)" | uv pip compile -q --universal --generate-hashes --no-header --no-annotate --extra dev \
	  --python-version 3.11 --exclude-newer "$$(date -u -d '7 days ago' +%F)" --constraint - \
	  $(CUDA_PACKAGES:%=--no-emit-package %) --upgrade -o requirements.lock pyproject.toml

SBOM = dist/w2sd-$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml).cdx.json
dist:  ## the wheel, and beside it a bill of materials (CycloneDX): what the lock pins, and torch, which it leaves out
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && $(PYTHON) -m venv "$$tools" \
	  && "$$tools/bin/python" -m pip --disable-pip-version-check -qq wheel --no-deps -w dist . \
	  && "$$tools/bin/python" -m pip --disable-pip-version-check -qq install cyclonedx-bom==7.5.0 \
	  && { cat requirements.lock; echo "torch==$(TORCH)"; } | "$$tools/bin/cyclonedx-py" requirements \
	    --pyproject pyproject.toml --mc-type library --output-reproducible -o $(SBOM) -
	@ls dist

clean:  ## remove what was built here, but never the store
	rm -rf $(VENV) report build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
