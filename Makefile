# Every target sets up what it needs. `make` alone prints this help.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
MEDLOOP := $(BIN)/medloop
SOURCES := schemas kernels model services tests benchmarks

# Hospitals inspect TLS: trust the system's certificate store, under uv's new and old name for it.
export UV_SYSTEM_CERTS := 1
export UV_NATIVE_TLS := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)
# One thread a process: seven services share the machine, and results must not depend on its size.
export OMP_NUM_THREADS ?= 1

DATA := $(abspath $(wildcard ../shared/data))
ifneq ($(DATA),)
export MEDLOOP_DATA ?= $(DATA)
endif

SCENARIO ?= data-drift

.PHONY: help
help: ## Print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

# --- set-up ---------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.installed ## Create .venv with every service and the development tools

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "medloop needs Python 3.11 to 3.13; this is " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

NATIVE := kernels/CMakeLists.txt $(wildcard kernels/medloop_kernels/cpu/*.cpp kernels/medloop_kernels/cpu/*.h)

$(VENV)/.installed: $(UV) requirements.lock schemas/pyproject.toml kernels/pyproject.toml model/pyproject.toml services/pyproject.toml $(NATIVE)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
		-e schemas -e kernels -e model -e services
	@touch $@

.PHONY: lock
lock: $(UV) ## Resolve the dependencies again and write requirements.lock
	$(UV) lock --quiet --upgrade
	$(UV) export --quiet --no-header --no-emit-workspace --no-emit-project --format requirements.txt \
		--output-file requirements.lock >/dev/null

NVCC := kernels/build/nvcc

$(NVCC)/.installed: kernels/nvcc.lock | setup
	$(UV) pip install --quiet --python $(BIN)/python --target $(NVCC) --require-hashes -r kernels/nvcc.lock
	@touch $@

.PHONY: cuda
cuda: $(NVCC)/.installed ## Compile the CUDA kernels for sm_80, sm_87 and sm_90; needs no GPU (350 MB, once)
	$(BIN)/python -m medloop_kernels.cuda.build --nvcc $(NVCC)/nvidia/cu13/bin/nvcc

.PHONY: lock-cuda
lock-cuda: setup ## Resolve the CUDA compiler again and write kernels/nvcc.lock
	$(UV) pip compile --quiet --upgrade --no-header --no-annotate --generate-hashes --group nvcc \
		--output-file kernels/nvcc.lock >/dev/null

# --- use ------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## Run the whole loop on a drifting stream; SCENARIO=data-drift|concept-drift|new-class|site-change
	$(MEDLOOP) demo --scenario $(SCENARIO)

.PHONY: contract
contract: setup ## Generate AsyncAPI and JSON Schemas under schemas/contract
	$(BIN)/python -m medloop_schemas.contract

.PHONY: pretrained
pretrained: setup ## Train the shipped models again: PneumoniaMNIST (needs MEDLOOP_DATA) and phantoms
	$(MEDLOOP) pretrain --data $${MEDLOOP_DATA:?}/medmnist/pneumoniamnist.npz --seed 0 --name ward --out model/medloop_model/pretrained/pneumonia
	$(MEDLOOP) pretrain --data phantoms --seed 0 --name phantom --out model/medloop_model/pretrained/phantom

# They want an older numpy, rich or typer than medloop's.
DRIFT_PEERS := benchmarks/drift/.peers
LEARN_PEERS := benchmarks/learn/.peers
FEDERATION_PEERS := benchmarks/federation/.peers

.PHONY: bench-peers
bench-peers: setup ## Install what only benchmarks compare with: ONNX Runtime; drift's, learning's and federation's peers apart
	$(UV) pip install --quiet --python $(BIN)/python --group bench
	$(UV) venv --quiet --clear --python $(BIN)/python $(DRIFT_PEERS)
	$(UV) pip install --quiet --python $(DRIFT_PEERS)/bin/python -r benchmarks/drift/peers.txt
	$(UV) pip install --quiet --python $(BIN)/python --target $(LEARN_PEERS) --no-deps -r benchmarks/learn/peers.txt
	$(UV) venv --quiet --clear --python $(BIN)/python $(FEDERATION_PEERS)
	$(UV) pip install --quiet --python $(FEDERATION_PEERS)/bin/python -r benchmarks/federation/peers.txt

.PHONY: docs-drift
docs-drift: bench-peers ## Measure the monitoring beside its peers and draw docs/drift.png from the figures
	$(MEDLOOP) bench drift --streams 20 --json runs/drift.json
	$(BIN)/python benchmarks/drift/plot_overview.py runs/drift.json docs/drift.png

TRIED_ON_SCANNER := restyled=0 retention=0.0 everything=False ewc_lambda=0.1 discriminant_images=128 alpha=0.7
TRIED_ON_POLICY := alpha=1.0 alpha=0.7,masked=False augmentation=0.0 augmentation=0.5 retention=0.0

.PHONY: docs-learn
docs-learn: bench-peers ## Measure learning beside its peers; write docs/learning.md and docs/learn.png from the figures
	$(MEDLOOP) bench learn --held-out 0 1 2 3 4 5 --json runs/learn.json
	$(MEDLOOP) bench learn --conditions "scanner 3" --methods medloop $(addprefix medloop:,$(TRIED_ON_SCANNER)) --json runs/tried_scanner.json
	$(MEDLOOP) bench learn --conditions policy --methods medloop $(addprefix medloop:,$(TRIED_ON_POLICY)) --json runs/tried_policy.json
	$(BIN)/python benchmarks/learn/write_document.py runs/learn.json docs/learning.md --tried runs/tried_scanner.json runs/tried_policy.json
	$(BIN)/python benchmarks/learn/plot_learning.py runs/learn.json docs/learn.png

.PHONY: tune-peers
tune-peers: bench-peers ## Choose the settings of learning's peers on validation images again
	$(BIN)/python benchmarks/learn/tune_peers.py

.PHONY: bench-optimiser-step
bench-optimiser-step: setup ## What one optimiser step takes and holds: all layers, shallow ones, the head alone
	$(BIN)/python benchmarks/learn/measure_optimiser_step.py

.PHONY: bench-tuning
bench-tuning: setup ## What a search for hyperparameters gains and costs
	$(BIN)/python benchmarks/learn/measure_tuning.py

.PHONY: bench-stationary
bench-stationary: setup ## 100,000 unchanging images through a real broker: how many alarms, all of them false
	$(BIN)/python benchmarks/drift/stationary_replay.py

.PHONY: bench
bench: bench-peers ## Benchmarks: each prints a ratio against a peer measured in the same run
	for file in $$(find benchmarks -name 'bench_*.py' | sort); do $(BIN)/python $$file; done

# --- checks ---------------------------------------------------------------------------------------------

.PHONY: format
format: setup ## Format and fix what can be fixed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: lint
lint: setup ## ruff, mypy --strict, import boundaries, compose file, Dockerfiles
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy schemas/medloop_schemas kernels/medloop_kernels model/medloop_model services/medloop_services
	$(BIN)/lint-imports --no-cache
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint deploy/docker/Dockerfile deploy/jetson/Dockerfile

.PHONY: test
test: setup ## Unit, integration and short fault tests, against a real broker
	$(BIN)/pytest -n 2 --dist loadfile -m 'not slow'

.PHONY: test-faults
test-faults: setup ## All 20 kill -9 rounds of 2,000 events a service
	MEDLOOP_FAULT_ROUNDS=20 $(BIN)/pytest tests/faults -n 2

.PHONY: test-loop
test-loop: setup ## The loop closes in one process on three scenarios
	$(BIN)/pytest -n 2 -m slow -k one_process tests/integration/test_the_loop_closes.py --timeout 600

.PHONY: test-slow
test-slow: setup ## All slow ones: test-loop, test-sanitizers, the demo with a kill -9 of everything, each extra alone
	$(BIN)/pytest -m slow --timeout 1200

.PHONY: test-sanitizers
test-sanitizers: setup ## The C++ and CUDA kernels under ASan and UBSan, VNNI and AMX emulated, and as Arm code under QEMU
	$(BIN)/pytest -n 2 -m slow tests/unit/kernels --timeout 600

.PHONY: test-cuda
test-cuda: cuda ## The CUDA kernels and networks on the GPU of this machine, by the suites of every back end
	$(BIN)/python -c "import medloop_kernels; medloop_kernels.select('cuda')"
	$(BIN)/pytest tests/unit/kernels/test_every_backend.py tests/unit/kernels/test_compiled_network.py \
		tests/unit/kernels/cuda

.PHONY: test-extras
test-extras: setup ## Install each service's extra alone and import its app
	$(BIN)/pytest tests/integration/test_extras.py

.PHONY: clean
clean: ## Remove the virtual environment and what was built
	rm -rf $(VENV) kernels/build .mypy_cache .ruff_cache .pytest_cache .hypothesis runs
