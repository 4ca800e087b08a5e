# Two commands matter: `make demo` and `make test`. Both make .venv on their first call and reuse it; after that they
# work offline. PYTHON= names the interpreter that .venv is made with (3.11 or later). VENV= names another place for it;
# an environment that already exists there is used as it is, and nothing is installed into it.
#
# Installing is done again when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

MADE_HERE := $(VENV)/.made-by-sciffusion
FOREIGN := $(if $(wildcard $(MADE_HERE)),,$(wildcard $(VENV)/bin/python))
RUN := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" "$(VENV)/bin/python" -m

.PHONY: help demo test lint format clean
.DELETE_ON_ERROR:

help:  ## list the commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.installed-run  ## sample and score an ensemble on embedded ERA5; report in demo-output/
	@echo "demo: sampling, scoring and drawing; everything goes to demo-output/"
	@$(RUN) sciffusion demo $(ARGS)

test: $(VENV)/.installed-test  ## run the tests on all cores (ARGS="-n 0 -m slow" for the long ones, one by one)
	@echo "test: running the test suite"
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) pytest -n auto --maxprocesses 8 $(ARGS)

lint: $(VENV)/.installed-lint  ## check style, format and types
	@echo "lint: ruff check, ruff format --check, mypy"
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

format: $(VENV)/.installed-lint  ## format the code
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

clean:  ## remove .venv, outputs of the demo and caches; VENV= elsewhere is left alone
	@echo "clean: removing .venv, demo-output and caches"
	@rm -rf .venv demo-output dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ifeq ($(FOREIGN),)
$(MADE_HERE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is not Python 3.11 or later; name one that is: make demo PYTHON=python3.12" >&2; exit 1; }
	@echo "venv: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv "$(VENV)"
	@touch $@

$(VENV)/.installed-run: pyproject.toml constraints.txt | $(MADE_HERE)
	@echo "install: what sciffusion needs to run, into $(VENV) (the only step that uses the network)"
	@"$(VENV)/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(MADE_HERE)
	@echo "install: what sciffusion needs to run, and its '$*' extra, into $(VENV) (the only step that uses the network)"
	@"$(VENV)/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@
else
.PHONY: $(VENV)/.installed-run $(VENV)/.installed-test $(VENV)/.installed-lint
$(VENV)/.installed-run $(VENV)/.installed-test $(VENV)/.installed-lint:
	@echo "venv: using $(VENV) as it is"
endif
