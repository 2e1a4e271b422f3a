# make demo    install, search on embedded data with 20 trials, print the front (minutes)
# make test    install, run all tests
# make lint    formatting, lint, types
# make bench   timings, on this machine
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench clean
.DEFAULT_GOAL := demo

# installed again when the project's dependencies change
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/autocomp search search_spaces/captioner.yaml --trials 20 --out results/demo

test: $(VENV)/installed
	$(BIN)/pytest --numprocesses auto --dist loadscope

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python benchmarks/depthwise_training.py
	$(BIN)/python benchmarks/survive_kills.py

clean:
	rm -rf $(VENV) results/demo
