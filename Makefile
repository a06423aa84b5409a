# Everything runs in an environment that make builds itself: .venv, or .venv-numpy1 with STACK=numpy1.
# `make clean env` takes the newest packages of the day; another interpreter: `make env PYTHON=python3.12`.

PYTHON = python3
STACK = newest
CHAINER = chainer==7.8.1

ifeq ($(STACK),newest)
VENV = .venv
NUMPY = numpy
else ifeq ($(STACK),numpy1)
VENV = .venv-numpy1
NUMPY = numpy==1.26.4
else
$(error STACK=$(STACK) is unknown; it is newest (the default) or numpy1)
endif

PY = $(VENV)/bin/python
PIP = $(PY) -m pip install --quiet --disable-pip-version-check

# Of the caller's settings for Python and pip only those reach the environment that say where packages come from.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH
unexport $(filter-out %_URL %_LINKS %_INDEX %CERT %_HOST %_PROXY %_PROVIDER %_TIMEOUT %_RETRIES \
    %CACHE_DIR %_CONFIG_FILE,$(filter PIP_%,$(.VARIABLES)))

# The models here are small: BLAS threads that wait for each other cost more than they bring.
export OPENBLAS_NUM_THREADS ?= 1

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

env: $(VENV)/built  ## build the environment, if it is missing or stale
	@:

QUICKSTART_SEED = 6  # of the study's ten the one whose results lie nearest to their means
quickstart: env  ## train the digits MLP in fp32 and in fp16 by every method; prints a table
	$(PY) -m experiments sweep configs/digits_mlp.yaml -o 'sweep.seeds=[$(strip $(QUICKSTART_SEED))]'
	@$(PY) -m experiments report results/digits_mlp --html

STUDY = digits digits_seeds sigmoid sigmoid_seeds text text_seeds resnet20 resnet20_seeds ssd300 ssd300_seeds cnn cnn_bn
study: env  ## all runs of docs/study.md, and the page anew; hours; it goes on where it was interrupted
	@if [ -d ../shared/data ]; then $(MAKE) --no-print-directory data; fi
	for name in $(STUDY); do $(PY) -m experiments sweep configs/study_$$name.yaml --jobs 2 || exit; done
	$(PY) -m experiments study $(STUDY:%=results/study_%) --out docs

SHORT = --jobs 2 --out results/small -o train.epochs=2 -o report.gradient_error=5 -o report.comparison=6
study-small: env  ## the study of the digits alone, cut short, and its tables; a minute
	$(PY) -m experiments sweep configs/study_digits.yaml $(SHORT) -o 'sweep.seeds=[0]'
	$(PY) -m experiments sweep configs/study_digits_seeds.yaml $(SHORT) -o 'sweep.seeds=[0, 1]' \
	    -o 'sweep.scaling=[{method: fp32}, {method: none}, {method: per_sample}]'
	$(PY) -m experiments study results/small --out results/small
	@cat results/small/study.md
	@cd results/small/study && ls windows.png underflow.png error.png predictions.png wanted.png

pictures: quickstart  ## draw the pictures of README.md and docs/ from the quickstart's runs
	$(PY) docs/draw_pictures.py results/digits_mlp $(QUICKSTART_SEED)

docs: env  ## build the guide as a site, docs/_build/index.html; a warning is an error; Python 3.11 or newer
	$(PIP) --only-binary :all: --no-build-isolation --editable '.[docs]'
	$(PY) -m sphinx --quiet --fresh-env --fail-on-warning --keep-going docs docs/_build
	@echo docs/_build/index.html

test: env  ## run the tests but for the slow ones; STACK=numpy1: on NumPy 1.26; ARGS='-k join': some
	$(PY) -m pytest -m 'not slow' $(ARGS)

test-slow: env  ## run the slow tests
	$(PY) -m pytest -m slow $(ARGS) || [ $$? -eq 5 ]  # 5: none was found

test-mpi: env  ## run the tests with several workers; installs OpenMPI (Debian's) and mpi4py if missing
	command -v mpiexec >/dev/null || { apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends openmpi-bin; }
	$(PIP) --only-binary :all: --no-build-isolation --editable '.[mpi]'
	$(PY) -m pytest -m mpi --strict-mpi $(ARGS)

ifdef EMULATED
test-gpu:
	@if [ -d '$(EMULATOR)' ]; then $(MAKE) --no-print-directory test-gpu-emulated; \
	else echo 'skipped: the emulated GPU is not there ($(EMULATOR))'; fi
else
test-gpu: env  ## run the tests that need a GPU; CUDA=cuda13x (or cuda12x): install CuPy; EMULATED=1: on the CPU
	$(if $(CUDA),$(PIP) --only-binary :all: --no-build-isolation '$(NUMPY)' --editable '.[$(CUDA)]')
	$(PY) -m pytest -m gpu -rs $(ARGS)
endif

data: samples env  ## put the sample data where the configs *-small look for it; needs ../shared/data
	mkdir -p data
	for name in mnist-10k cells-voc camvid imagenet-sample; do ln -sfn "$(abspath ../shared/data)/$$name" data/$$name; done
	$(PY) ../shared/tools/unpack_cifar10.py data

samples:  # a prerequisite before `env`, which would be built for nothing
	@test -d ../shared/data -a -f ../shared/tools/unpack_cifar10.py || { echo 'make data needs the samples' \
	    '../shared/data and ../shared/tools/unpack_cifar10.py beside this checkout; other data: README.md' >&2; exit 1; }

lint: env  ## check the style and the types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

package: env  ## build the sdist, and the wheel from it, into dist
	$(PY) -m build --no-isolation

clean:  ## remove the environments and what tools left behind; results stay
	rm -rf .venv .venv-numpy1 .venv-emulated-* build dist docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help env quickstart pictures docs study study-small test test-slow test-mpi test-gpu data samples lint package clean

# The emulated GPU compiles CuPy's kernels for the CPU: right values, and no timings. It takes an environment of its own,
# with CuPy 14, or CUPY=13.6.0, whose library it patches. Kernels read and write inside arrays (CHECK), and no result
# depends on the order of threads (ORDER) or on copies that have not arrived (LATE). What kernels move is counted (TRACE).
EMULATOR = ../shared/tools/cuda-emulator
CUPY = 14.2.0
EMULATED_VENV = .venv-emulated-$(CUPY)
ON_EMULATED_GPU = . $(EMULATED_VENV)/bin/activate && . $(EMULATED_VENV)/emulator/env.sh && python -m pytest -m gpu -q

test-gpu-emulated: SHELL = bash
test-gpu-emulated: $(EMULATED_VENV)/emulated
	$(ON_EMULATED_GPU) -rs $(ARGS)
	export CUEMU_CHECK=1 && $(ON_EMULATED_GPU) -p cuemu_check tests/gpu/test_kernels.py tests/gpu/test_choices.py
	export CUEMU_LATE=1 && $(ON_EMULATED_GPU) tests/gpu/test_scaling.py
	export CUEMU_ORDER=1 && $(ON_EMULATED_GPU) tests/gpu/test_scaling.py
	export CUEMU_TRACE=1 && $(ON_EMULATED_GPU) tests/gpu/test_counts.py

$(EMULATED_VENV)/emulated: setup.py $(wildcard $(EMULATOR)/* $(EMULATOR)/*/*)
	command -v clang++-16 >/dev/null || { apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends clang-16 g++ binutils libopenblas-dev; }
	rm -rf $(EMULATED_VENV)
	$(MAKE) --no-print-directory env VENV=$(EMULATED_VENV)
	$(EMULATED_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
	    cupy-cuda12x==$(CUPY)
	cp -r $(EMULATOR) $(EMULATED_VENV)/emulator
	chmod -R u+w $(EMULATED_VENV)/emulator
	$(EMULATED_VENV)/bin/python $(EMULATED_VENV)/emulator/build.py
	touch $@

.PHONY: test-gpu-emulated

# `built` is written last, so an interrupted build is never taken for a whole one. It says what the environment was
# made from, and counts as long as that is still so. The path is part of it: the editable install points there.
BUILT_FROM = $(PY) -V; pwd; cksum setup.py; echo '$(PYTHON) $(CHAINER) $(NUMPY)'
ifneq ($(shell ($(BUILT_FROM)) 2>&1),$(shell cat $(VENV)/built 2>&1))
.PHONY: $(VENV)/built
endif

FIT = import sys, ensurepip, venv; print(sys.version_info >= (3, 9))
NO_PYTHON = $(PYTHON) is not Python 3.9 or newer with venv and pip. Debian: apt install python3-venv. \
    Another interpreter: make PYTHON=/path/to/python3

# Chainer is an sdist of pure Python whose setup.py imports pkg_resources, which setuptools 82 dropped: it is built, and
# so are we, with an older setuptools, which then makes way for the newest. Nothing else may be compiled.
$(VENV)/built:
	$(if $(filter True,$(shell '$(PYTHON)' -I -c '$(FIT)' 2>&1 || :)),,$(error $(NO_PYTHON)))
	rm -rf $(VENV)
	'$(PYTHON)' -m venv $(VENV)
	$(PIP) --upgrade --only-binary :all: 'setuptools<81' wheel
	$(PIP) --no-build-isolation --no-deps $(CHAINER)
	$(PIP) --upgrade --only-binary :all: --no-build-isolation setuptools '$(NUMPY)' --editable '.[experiments,test]'
	@($(BUILT_FROM)) > $@
