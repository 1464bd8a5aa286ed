# Commands for people who work on vinpaint. Users need none of them.
.PHONY: install test benchmark lint format kernels predict gpu gpu-hopper gpu-tune gpu-train

PYTHON ?= python

install:          ## build and install with test and development tools
	pip install '.[test,dev]'

test:             ## the test suite, on the installed package
	pytest

benchmark:        ## ours and the peers, side by side
	pytest benchmarks --benchmark-only

lint:             ## style and types, nothing is changed
	ruff check .
	ruff format --check .
	mypy
	git ls-files 'csrc/*' 'benchmarks/*' 'tests/*' | grep -E '\.(cpp|cu|h)$$' | xargs clang-format --dry-run --Werror

format:           ## bring everything into the project's style
	ruff check --fix .
	ruff format .
	git ls-files 'csrc/*' 'benchmarks/*' 'tests/*' | grep -E '\.(cpp|cu|h)$$' | xargs clang-format -i

# --- needs nvcc, no GPU

kernels:          ## compile every kernel for every architecture; its registers; fails on a spill
	$(PYTHON) benchmarks/tools/kernels.py --output benchmarks/results/kernels.md

predict:          ## what every layer should take on an H200
	$(PYTHON) benchmarks/predict.py --card h200 --output benchmarks/results/predicted-h200.md

# --- needs a GPU, no network: WHEELS=folder of packages to install first, COMMIT=where there is no git

OUT ?= benchmarks/results
STAGES ?=         # all of them; `make gpu STAGES="build tests"` for some

gpu:              ## build for this card, test, tune, measure, check memory; results in OUT
	$(PYTHON) benchmarks/tools/gpu_run.py --out $(OUT) $(STAGES)

gpu-hopper:       ## the kernel for capability 9.0 alone, without torch: is it right, how fast is it
	mkdir -p build $(OUT)
	nvcc -std=c++17 -O3 -gencode arch=compute_90a,code=sm_90a --expt-relaxed-constexpr \
	  -DVINPAINT_WITH_CUDA -DVINPAINT_WITH_HOPPER -o build/hopper_check csrc/implicit_gemm.cpp \
	  csrc/cuda/implicit_gemm_hopper.cu tests/gpu/implicit_gemm_hopper.cu
	bash -o pipefail -c 'build/hopper_check | tee $(OUT)/hopper-check.txt'

gpu-tune:         ## time every convolution with every algorithm on this card, write the table; build again
	$(PYTHON) benchmarks/tools/tune.py --copy $(OUT)

RUN ?= run
SHOTS ?=          # packed by `benchmarks/tools/travel.py pack-shots`; may be left out if RUN has shots
CHECKPOINT ?=     # parts packed by `benchmarks/tools/travel.py pack-checkpoint`, to go on from
SECONDS ?= 420
TRAIN ?= --batch 8 --frames 16 --size 128 --comb-frames 4 --workers 14 --save-every 50

gpu-train:        ## train for SECONDS into RUN; the checkpoint comes back in OUT, in parts
	mkdir -p $(RUN)/shots $(RUN)/no-videos $(OUT)
	$(if $(SHOTS),$(PYTHON) benchmarks/tools/travel.py unpack-shots $(SHOTS) $(RUN)/shots)
	$(if $(CHECKPOINT),$(PYTHON) benchmarks/tools/travel.py unpack-checkpoint $(CHECKPOINT) $(RUN)/start.pt)
	-PYTHONSAFEPATH=1 timeout --signal=INT $(SECONDS) $(PYTHON) -m vinpaint train $(RUN)/no-videos \
	  --output $(RUN) $(if $(CHECKPOINT),--init $(RUN)/start.pt) $(TRAIN)
	cp $(RUN)/log.jsonl $(OUT)
	$(PYTHON) benchmarks/tools/travel.py pack-checkpoint $(RUN)/checkpoint.pt $(OUT)
