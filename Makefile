# Commands for people who work on vinpaint. Users need none of them.
.PHONY: install test benchmark lint format docs docs-refresh kernels predict gpu gpu-hopper gpu-tune gpu-train

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

docs:             ## the documentation, into docs/site
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict -f docs/mkdocs.yml -d site

docs-refresh:     ## what its pages contain of the code's own: options, drawings, plots, gallery, pictures of the page
	cd /tmp && for tool in cli_page draw_kernels plots gallery screenshots; do $(PYTHON) $(CURDIR)/docs/tools/$$tool.py || exit 1; done

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
CONFIG ?= default # a TOML file or a recipe
SHOTS ?=          # packed by `benchmarks/tools/travel.py pack-shots`, unpacked if RUN has no shots
CHECKPOINT ?=     # parts packed by `benchmarks/tools/travel.py pack-checkpoint`, unpacked if RUN has none
TIME ?= 8m
OPTIONS ?=        # more of `vinpaint train`, such as --set run.workers=14

gpu-train:        ## train for TIME into RUN, again to go on; log and checkpoint come back in OUT, in parts
	mkdir -p $(RUN) $(OUT)
	$(if $(SHOTS),test -e $(RUN)/shots || $(PYTHON) benchmarks/tools/travel.py unpack-shots $(SHOTS) $(RUN)/shots)
	$(if $(CHECKPOINT),test -e $(RUN)/checkpoint.pt || \
	  $(PYTHON) benchmarks/tools/travel.py unpack-checkpoint $(CHECKPOINT) $(RUN)/checkpoint.pt)
	PYTHONSAFEPATH=1 $(PYTHON) -m vinpaint train $(CONFIG) --output $(RUN) --time-limit $(TIME) $(OPTIONS) \
	  || test $$? -eq 75
	gzip -c $(RUN)/log.jsonl > $(OUT)/log.jsonl.gz
	$(PYTHON) benchmarks/tools/travel.py pack-checkpoint $(RUN)/checkpoint.pt $(OUT)
