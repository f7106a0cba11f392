# Every target does its own set-up: a fresh clone on a machine with Python >= 3.11 and make is enough.
# The stamp files make the second call fast; they are renewed when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
OUT ?= out/demo

.PHONY: demo test test-all fuzz lint bench witness clean
.DEFAULT_GOAL := demo

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recon needs Python 3.11 or newer, found " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/created
	@echo "Installing recon into $(VENV) (the first time this takes some minutes)"
	@$(PIP) install -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/created
	@echo "Installing recon and its tools into $(VENV) (the first time this takes some minutes)"
	@$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/installed

# Reconstruct the shipped sample and say where to look.
demo: $(VENV)/installed
	@$(BIN)/recon run data/sample -o $(OUT)
	@echo
	@echo "Look at $(OUT)/preview.png and $(OUT)/orbit.mp4, then walk round the scene with:"
	@echo "    $(BIN)/recon view $(OUT)"

# What every change must pass; the files of tests are shared out to two processes.
test: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

# Also the slow ones (real photo sets, a full install of the wheel).
test-all: $(VENV)/installed-dev
	@$(BIN)/python -m pytest

# Damaged and hostile scene files, 20,000 trials per format.
fuzz: $(VENV)/installed-dev
	@$(BIN)/python -m pytest tests/test_recon_formats_bad_input.py -m slow

lint: $(VENV)/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

# Quality and speed on real photos; needs RECON_EVAL_DATA or ../shared/data. Prints the tables of tests/benchmarks/RESULTS.md.
bench: $(VENV)/installed-dev
	@$(BIN)/python tests/benchmarks/bench_pipeline.py

# The rasteriser against an independent renderer.
witness: $(VENV)/installed-dev
	@$(BIN)/python tests/benchmarks/witness.py

clean:
	rm -rf build dist *.egg-info out .ruff_cache
