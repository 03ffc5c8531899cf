# `make demo` and `make test` do all the set-up; everything else is listed here.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ROOMS := search distill quant bench leaderboard
# Where the caller forbids bytecode, each process start compiles torch and timm anew: 8 s of CPU time instead of 3. The
# set-up imports what most commands import, so that not every process of the first one compiles it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo docs reference test test-fast test-slow fuzz test-lowest test-nni mutants check types bench bench-search bench-strategies bench-predictor bench-schedules bench-latency bench-transfer bench-baseline bench-compare bench-verdicts bench-repeat bench-runtimes bench-folds bench-int8-loss bench-pretrained bench-latency-host bench-budget bench-int8 bench-int8-search bench-prune bench-supernet bench-store clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]'
	$(BIN)/python -c "import tutelage.pipeline.run, timm, nncf, openvino, onnxruntime, matplotlib.pyplot" >/dev/null
	touch $@

demo: $(READY)
	$(BIN)/tutelage run demo

# One process a core, one thread each; the tests of a file stay together, since they share what was built once, and
# start in the order of tests/conftest.py, not by their number.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --ignore=tests/benchmarks -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations=20

test: $(READY)
	$(PYTEST) -m 'not long'

test-fast: $(READY)
	$(PYTEST) -m 'not slow and not long'

# What needs minutes: whole runs that are killed or repeated, installations, the widest matrices.
test-slow: $(READY)
	$(PYTEST) -m long

# Every reader of what users bring: 10,000 damaged files each, within bounds of CPU time and memory. What fails is kept
# in FUZZ_OUT.
FUZZ ?= 10000
FUZZ_OUT ?= /tmp

fuzz: $(READY)
	FUZZ=$(FUZZ) FUZZ_OUT=$(FUZZ_OUT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -n auto --maxprocesses 8 -q -rP

# NNI holds filelock below 3.12 and would change the pinned environment: what needs it is tested in one of its own.
NNI_ENV ?= .venv-nni

# On a machine with a GPU, in a bare checkout: six minutes, no network, no environment of ours. GPU_DATA is an .npz or
# parquet file of CIFAR-10 images; GPU_ARGS="--accelerator cpu --quick" tests the script itself.
GPU_PY ?= python3
GPU_DATA ?=
GPU_ARGS ?=
.PHONY: check-gpu
check-gpu:
	$(GPU_PY) tests/gpu/check_gpu.py $(if $(GPU_DATA),--data $(GPU_DATA)) $(GPU_ARGS)

test-nni: $(READY)
	test -x $(NNI_ENV)/bin/python || $(PY) -m venv $(NNI_ENV)
	grep -v '^filelock==' constraints.txt | $(BIN)/uv pip install -q --python $(NNI_ENV)/bin/python -c - -e '.[nni]' pytest pytest-timeout hypothesis
	OMP_NUM_THREADS=1 $(NNI_ENV)/bin/python -m pytest tests/nni -q

# Which changes of a file its own tests notice: FILES="bench/protocol/drift.py" NUM=50; all files take about an hour.
FILES ?=
NUM ?= 100
mutants: $(READY)
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[mutants]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutation/run.py $(FILES) --num $(NUM)

# The lowest versions that pyproject.toml allows, in an environment of their own: what each dependency is used for.
LOWEST_ENV ?= .venv-lowest
LOWEST_TESTS := tests/quant/int8/test_ptq.py tests/quant/int8/test_qat.py tests/quant/prune/test_prune.py \
  tests/distill/teachers/test_teachers.py tests/distill/losses/test_losses.py tests/distill/data/test_xray.py tests/distill/data/test_medmnist.py \
  tests/search/samplers/test_strategies.py tests/search/supernet/test_score.py tests/bench/runtimes/test_runtimes.py tests/leaderboard/store/test_store.py \
  tests/leaderboard/test_export.py tests/leaderboard/plots/test_plots.py tests/tutelage/pipeline/test_recipe.py tests/tutelage/cli/test_terminal.py

test-lowest: $(READY)
	$(BIN)/uv venv -q --clear --python "$$($(BIN)/python -c 'import sys; print(sys._base_executable)')" $(LOWEST_ENV)
	$(BIN)/uv pip install -q --python $(LOWEST_ENV)/bin/python --resolution lowest-direct -e '.[litert,ncnn,prune,medmnist,xray,dicom,postgres]'
	$(BIN)/uv pip install -q --python $(LOWEST_ENV)/bin/python -c constraints.txt pytest pytest-timeout pytest-xdist hypothesis
	OMP_NUM_THREADS=1 $(LOWEST_ENV)/bin/python -m pytest $(LOWEST_TESTS) -m 'not slow' -q -n auto --maxprocesses 8 --dist loadfile

# Type checkers do not know setuptools' package-dir mapping: show them the house as it is when installed.
types:
	rm -rf .types && mkdir -p .types/tutelage
	for f in tutelage/*.py tutelage/py.typed tutelage/recipes tutelage/pipeline tutelage/cluster tutelage/cli; do ln -s ../../$$f .types/tutelage/; done
	for room in $(ROOMS); do ln -s ../../$$room .types/tutelage/$$room; done

check: $(READY) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p tutelage

# What the guide lists of the registries: its columns, strategies, spaces and distillation methods.
reference: $(READY)
	$(BIN)/python -m tutelage.leaderboard.reference > docs/columns.md
	$(BIN)/python -m tutelage.cli.reference docs

# The site of docs/ in site/; a broken link or anchor fails.
docs: $(READY)
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-autosave

# The newest saved run becomes what later ones are compared with, or is compared with it by ratio.
bench-baseline: $(READY)
	$(BIN)/python tests/benchmarks/compare.py --save

bench-compare: $(READY)
	$(BIN)/python tests/benchmarks/compare.py

# Error rates of the paired tests by simulation: ten minutes, no data.
bench-verdicts: $(READY)
	$(BIN)/python tests/benchmarks/verdict_rates.py

bench-repeat: $(READY)
	$(BIN)/python tests/benchmarks/repeatability.py

bench-runtimes: $(READY)
	$(BIN)/python tests/benchmarks/runtime_table.py

# Tables that are printed, not asserted: they take minutes and need the public tables (TUTELAGE_DATA or ../shared/data).
DATA ?= $(or $(TUTELAGE_DATA),../shared/data)

# Ours against Optuna's samplers, with noise and without: 16 minutes on two cores that other work shared. SEEDS=1 is a third of it.
SEEDS ?= 3
METHODS ?= ours,tpe,nsga2,gp
bench-search: $(READY)
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[optimisers]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/search_comparison.py --data $(DATA) --seeds $(SEEDS) --methods $(METHODS)

# Our own strategies against each other and OFA's evolution finder.
bench-strategies: $(READY)
	$(BIN)/python tests/benchmarks/search_strategies.py --data $(DATA)

bench-predictor: $(READY)
	$(BIN)/python tests/benchmarks/predictor_table.py --data $(DATA)

bench-schedules: $(READY)
	$(BIN)/python tests/benchmarks/schedules.py --data $(DATA)

bench-latency: $(READY)
	$(BIN)/python tests/benchmarks/latency_tables.py $(DATA)

# What predicting latency costs, and refusing a latency budget: half a minute, no data.
.PHONY: bench-pricing
bench-pricing: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/latency_pricing.py

# A calibration as it was (all blocks, nothing kept) and as it is, in turns: RUNTIME=openvino SIDE=160.
.PHONY: bench-calibration
bench-calibration: $(READY)
	$(BIN)/python tests/benchmarks/calibration_cost.py --runtime $(RUNTIME) --resolution $(SIDE)

# A new device's model from those of others and 10, 20 or 50 networks, against fitting afresh: five minutes of a core.
DRAWS ?= 10
bench-transfer: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/transfer_tables.py $(DATA) --draws $(DRAWS)

# A block table and ten whole nets against nets never seen, measured here: RUNTIME=openvino SIDE=160.
RUNTIME ?= onnxruntime
SIDE ?= 64
bench-latency-host: $(READY)
	$(BIN)/python tests/benchmarks/latency_host.py --runtime $(RUNTIME) --resolution $(SIDE)

# One search under FLOPs and one a device under milliseconds; the measured fronts and a figure. It goes on where it was.
BUDGET_DIR ?= tutelage-workspace/budget-fronts
bench-budget: $(READY)
	$(BIN)/python tests/benchmarks/budget_fronts.py --data $(DATA) --workspace $(BUDGET_DIR)

bench-int8: $(READY)
	$(BIN)/python tests/benchmarks/int8_ratios.py

# A front searched on int8 figures against the fp32 front quantized; INT8_DIR keeps the supernet and the searches.
INT8_DIR ?= tutelage-workspace/int8-search
bench-int8-search: $(READY)
	$(BIN)/python tests/benchmarks/int8_search.py --data $(DATA) --keep $(INT8_DIR)

# Channels cut out of a larger student against subnets searched for the same milliseconds; PRUNE_DIR keeps what is done.
PRUNE_DIR ?= tutelage-workspace/pruning
bench-prune: $(READY)
	$(BIN)/python tests/benchmarks/pruning.py --data $(DATA) --keep $(PRUNE_DIR)

# A supernet's step and its scoring against the machine's peak and the `ofa` package: three and a half minutes on two cores.
bench-supernet: $(READY)
	$(BIN)/python tests/benchmarks/supernet_floor.py --data $(DATA)

# The memory that is counted of subnets and of their files against TFLite Micro's own report: four minutes, no data.
.PHONY: bench-memory
bench-memory: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/memory.py

# A million rows in the store: seconds and peak memory of every way to look at them. STORE_ARGS="--keep DIR --url URL --rows N".
STORE_ARGS ?=
bench-store: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/large_store.py $(STORE_ARGS)

bench-folds: $(READY)
	$(BIN)/python tests/benchmarks/folds.py --data $(DATA)/cxr3

bench-int8-loss: $(READY)
	$(BIN)/python tests/benchmarks/int8_loss.py --data $(DATA)/cxr3

# EfficientNet-Lite0 from ImageNet's weights against from scratch, three seeds on two sets. Sized for 40 minutes
# on two cores; --seeds, --epochs and --limit shorten it.
PRETRAINED_DIR ?= tutelage-workspace/pretrained
bench-pretrained: $(READY)
	$(BIN)/python tests/benchmarks/pretrained.py --data $(DATA) --workspace $(PRETRAINED_DIR)

clean:
	rm -rf $(VENV) $(NNI_ENV) $(LOWEST_ENV) .types build dist *.egg-info
