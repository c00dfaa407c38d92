# Everything happens in .venv; nothing outside the clone is touched.
# DGL is installed where it has wheels (Python up to 3.11): see [project.optional-dependencies].

PYTHON ?= python3
# Versions to install: those that results are made with. Another file chooses other builds, none (CONSTRAINTS=) the
# newest releases that pyproject.toml allows; a choice holds until the next one.
CONSTRAINTS := constraints.txt
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: setup constraints demo pilot boards test lint docs bench gpu stress wheel dist weights clean FORCE

setup: .venv/.done

.venv/.done: pyproject.toml $(CONSTRAINTS) $(if $(findstring command line,$(origin CONSTRAINTS)),FORCE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint "$(CONSTRAINTS)") -e ".[dev,dgl]"
	@echo "Compiling the kernels once (about half a minute) ..."
	$(BIN)/deepnets-bench generate --split val --num 1 --out .venv/warm-up > .venv/warm-up.log 2>&1
	touch $@

constraints: setup
	$(BIN)/python .ci/constraints.py > $@.new
	mv $@.new $@.txt

demo: setup
	$(BIN)/deepnets-bench run --gnn mlp,gat --data demo/data --out demo/results

# What is not finished of the pilot and of the boards; rows are committed as they are made. Interrupted, they go on.
JOBS ?= 2
pilot: setup
	for grid in grid bias-full bias-short; do \
	    $(BIN)/deepnets-bench grid run leaderboards/second-pilot/$$grid.toml --jobs $(JOBS) --commit || exit; \
	done

boards: setup
	$(BIN)/deepnets-bench grid run leaderboards/grid.toml --jobs $(JOBS) --commit

# Files of tests side by side, in so many processes of 1.5 GB.
WORKERS ?= 2
test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/imports.py

docs: setup
	$(BIN)/python -W ignore docs/build.py
	$(BIN)/python -m zensical build --strict --config-file mkdocs.yml

bench: setup
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --override-ini addopts=-q

# What only an NVIDIA GPU can show, in nine minutes, with the Python given and no venv: PyTorch from 2.11 on, and the
# other dependencies there or as wheels in a folder. Without a GPU one line, and exit code 2.
DIR ?= gpu-report
gpu:
	@$(PYTHON) tests/gpu/report.py --dir "$(DIR)" $(if $(WHEELS),--wheels "$(WHEELS)")

stress: setup
	$(BIN)/python -m pytest -m stress --override-ini addopts=-q

wheel: setup
	$(BIN)/python -m pytest tests/test_wheel.py --override-ini addopts=-q

# The files of a release: the source distribution, and the wheel that is built from it.
dist: setup
	rm -rf dist
	$(BIN)/python -c "from setuptools.build_meta import build_sdist; build_sdist('dist')"
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz

# Trained hypernetworks for a release, one seed of every GNN on the boards, with the rows that tell what they are.
SEED ?= 0
weights: setup
	$(BIN)/python leaderboards/pack_weights.py $(SEED) dist/weights-seed$(SEED).tar.gz

clean:
	rm -rf .venv demo build dist *.egg-info
