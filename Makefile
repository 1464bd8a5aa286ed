# Commands for people who work on vinpaint. Users need none of them.
.PHONY: install test benchmark lint format

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
	git ls-files 'csrc/*' | grep -E '\.(cpp|cu|h)$$' | xargs clang-format --dry-run --Werror

format:           ## bring everything into the project's style
	ruff check --fix .
	ruff format .
	git ls-files 'csrc/*' | grep -E '\.(cpp|cu|h)$$' | xargs clang-format -i
