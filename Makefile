# Each target makes the virtual environment that it needs. Only Python 3.11 or newer must be installed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Tests that start processes wait for them now and then, and leave a core free: one process more than there are cores.
WAITING := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# The programs that tests start would compile the package each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs test check static quick slow clean
.DEFAULT_GOAL := demo

# A stamp for each set of dependencies: made again when pyproject.toml changes. The tests hold an encoder to nnU-Net's
# networks, taken without what they depend on: timm, and with it torchvision.
$(VENV)/stamp-%: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[$*]'
	$(if $(filter dev,$*),$(BIN)/python -m pip install --quiet --no-deps dynamic-network-architectures==0.4.4)
	touch $@

demo: $(VENV)/stamp-all  ## prepare, pretrain, resume and evaluate on sample images; writes report.html
	$(BIN)/python -m demo --out demo-out

docs: $(VENV)/stamp-dev  ## the documentation: build/docs/index.html, which needs no server
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --config-file docs/mkdocs.yml

test: check $(VENV)/stamp-dev  ## everything that CI runs
	$(BIN)/python -m pytest --numprocesses $(WAITING) --dist loadgroup --no-loadscope-reorder -m "(integration or ray or system) and not slow and not gpu"

check: $(VENV)/stamp-dev  ## style, types, import contracts, quick tests; under 90 s on two cores
	$(MAKE) --no-print-directory --jobs 2 static quick

static: $(VENV)/stamp-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

quick: $(VENV)/stamp-dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not integration and not ray and not system and not slow and not gpu"

slow: $(VENV)/stamp-dev  ## what takes minutes; before a release
	$(BIN)/python -m pytest -m "slow and not gpu"

clean:
	rm -rf $(VENV) demo-out build *.egg-info
