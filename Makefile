# Two commands do everything: `make demo` and `make test`. Each makes .venv and installs what it needs the first time;
# the system's Python is only used to make .venv. `make help` lists the rest.
PYTHON ?= python3
OUT ?= runs/demo
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

# The environment is .venv and nothing else, whatever the shell has set.
unexport PYTHONPATH PYTHONHOME
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-export test-notebooks test-readme test-python install export clean-nbs readme lab docs docs-check pin hooks colab

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "  make %-15s %s\n", $$1, $$2 }'
	@echo "  PYTHON=python3.12 chooses the interpreter .venv is made with; OUT=runs/other the folder of the demo."

demo: $(READY) ## train on drawn street scenes and score the result, a few minutes on two CPU cores; go on where an interrupted demo stood
	$(BIN)/dpgan train --preset scenes --out $(OUT) --resume
	$(BIN)/dpgan evaluate --checkpoint $(OUT) --samples 2 --batch 16

test: $(READY) ## everything that has to hold: export in sync, notebooks, README, pytest
	@$(MAKE) --no-print-directory test-export
	@$(MAKE) --no-print-directory test-notebooks
	@$(MAKE) --no-print-directory test-readme
	@$(MAKE) --no-print-directory test-python

test-export: $(READY) ## dpgan/ is what the notebooks export, and the notebooks are clean
	@tools/stage "export in sync" $(BIN)/python tools/in_sync.py

# One thread a notebook and two notebooks at a time: two thread pools on two cores would fight.
test-notebooks: $(READY) ## run every notebook
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 tools/stage "notebooks" $(BIN)/nbdev_test --n_workers 2 --do_print --timing

test-readme: $(READY) ## README.md is what nbs/index.ipynb says
	@tools/stage "README" $(BIN)/python tools/readme.py --check

test-python: $(READY) ## pytest, two processes of one thread each
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 tools/stage "pytest" $(BIN)/python -m pytest -p no:cacheprovider -q -n 2 --durations=10 tests

export: $(READY) ## write dpgan/ from the notebooks, clean the notebooks, write README.md
	$(BIN)/nbdev_export
	$(BIN)/python tools/notebooks.py clean
	$(BIN)/python tools/readme.py

clean-nbs: $(READY) ## strip execution counts, editor metadata and dead widgets from the notebooks, keep their pictures
	$(BIN)/python tools/notebooks.py clean

readme: $(READY) ## write README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs

docs: $(READY) ## build the site into _docs/: with Quarto where it is installed, otherwise with smalldocs
	$(BIN)/python tools/docs.py

docs-check: $(READY) ## look for broken links, missing pictures and errors in the browser in _docs/
	$(BIN)/python tools/docs_check.py

pin: $(READY) ## write constraints.txt from what .venv holds now
	$(BIN)/python tools/pin.py

colab: $(READY) ## run every notebook as in Colab: alone, from the wheel, with Colab's packages (make test tries three)
	$(BIN)/python tools/colab.py --all --record benchmarks/results/colab.json

hooks: $(READY) ## have git and JupyterLab clean the notebooks of this clone, and merge them cell by cell; make install does it, too
	@$(BIN)/python tools/notebooks.py hooks

install: $(READY) ## make .venv and install everything into it

# Runs again whenever a requirement changes. A .venv left half made (no ensurepip) is removed, so that the next try starts clean.
$(READY): settings.ini setup.py constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.10 or newer, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "dpgan needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { \
		rm -rf $(VENV); \
		echo "$(PYTHON) could not make a virtual environment. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@echo "installing dpgan and its requirements into $(VENV) (some minutes, about 6 GB with torch)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	-@$(BIN)/python tools/notebooks.py hooks
	@touch $@
